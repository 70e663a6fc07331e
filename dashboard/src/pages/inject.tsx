/** Spoils calls of a Service for a time: the form that makes a FaultInjection, which ends by itself. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";

import { inject } from "../kube/write";
import { close, show } from "../ui/dialog";
import { doing } from "../ui/toast";
import { Said } from "../ui/words";

const DURATIONS = ["30s", "1m", "5m", "15m", "1h"];

export function injectDialog(namespace: string, service: string): void {
  show(`Fault in ${service}`, () => <Inject namespace={namespace} service={service} />);
}

function Inject({ namespace, service }: { namespace: string; service: string }): JSX.Element {
  const delay = useSignal(false);
  const delayMillis = useSignal(500);
  const delayPercent = useSignal(50);
  const abort = useSignal(true);
  const status = useSignal(503);
  const abortPercent = useSignal(30);
  const duration = useSignal("1m");
  const callers = useSignal("");
  const busy = useSignal(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    busy.value = true;
    const made = await doing(`Calls of ${service} are spoiled for ${duration.value}`, () =>
      inject({
        namespace,
        service,
        duration: duration.value,
        delay: delay.value ? { duration: `${delayMillis.value}ms`, percent: delayPercent.value } : undefined,
        abort: abort.value ? { httpStatus: status.value, percent: abortPercent.value } : undefined,
        callers: callers.value.split(/[\s,]+/).filter((caller) => caller !== ""),
      }),
    );
    busy.value = false;
    if (made) close();
  };
  const figure = (label: string, of: { value: number }, min: number, max: number, enabled: boolean) => (
    <label>
      {label}
      <input type="number" min={min} max={max} required disabled={!enabled} value={of.value} onInput={(event) => (of.value = Number(event.currentTarget.value))} />
    </label>
  );
  return (
    <form class="form" onSubmit={(event) => void submit(event)}>
      <p>
        Calls of Service <Said text={`${namespace}/${service}`} />, for a time; every node ends it by itself.
      </p>
      <fieldset>
        <legend>
          <label class="check">
            <input type="checkbox" checked={abort.value} onChange={(event) => (abort.value = event.currentTarget.checked)} /> Answer in its place
          </label>
        </legend>
        {figure("with status", status, 200, 599, abort.value)}
        {figure("percent of calls", abortPercent, 1, 100, abort.value)}
      </fieldset>
      <fieldset>
        <legend>
          <label class="check">
            <input type="checkbox" checked={delay.value} onChange={(event) => (delay.value = event.currentTarget.checked)} /> Have them wait
          </label>
        </legend>
        {figure("milliseconds", delayMillis, 1, 60000, delay.value)}
        {figure("percent of calls", delayPercent, 1, 100, delay.value)}
      </fieldset>
      <label>
        Only calls of these ServiceAccounts
        <input value={callers.value} placeholder="all; or cart, shop/web" spellcheck={false} onInput={(event) => (callers.value = event.currentTarget.value)} />
      </label>
      <label>
        For
        <select value={duration.value} onChange={(event) => (duration.value = event.currentTarget.value)}>
          {DURATIONS.map((duration) => (
            <option key={duration}>{duration}</option>
          ))}
        </select>
      </label>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>
          Leave it
        </button>
        <button type="submit" class="button button-danger" disabled={busy.value || (!delay.value && !abort.value)}>
          Inject
        </button>
      </div>
    </form>
  );
}
