/** Logs of several pods as one, followed: filtered by word and level, the newest below; what a line names can be gone to. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";

import { ApiError, json, lines, told, url } from "../kube/http";
import { list, text, type Item } from "../kube/read";
import { listPath, objectPath, pathOf, PODS, WORKLOADS } from "../kube/resource";
import { exact } from "../model/format";
import { logLine, sieve, type LogLine } from "../model/log";
import { Ring } from "../model/ring";
import { plain, withoutSequences } from "../model/text";
import { selectorOf, selectorText } from "../model/workload";
import { useAnswer, useObjects, useTitle } from "../ui/hooks";
import { on } from "../ui/keys";
import { asked, href, namespace, say } from "../ui/route";
import { Empty, Failure, instead, Said } from "../ui/words";

/** Pods whose logs are followed at the same time: each is an open answer. */
const PODS_MAX = 20;
const KEPT = 10_000;
const TAIL = 200;
const DRAW_MILLIS = 150;
const LINE_PIXELS = 20;
const BEYOND = 20;
const COLOURS = 8;
const PAUSE_MILLIS = 2000;

function useSelector(where: string, workload: string): { labels: string; error: ApiError | undefined } {
  const found = useAnswer(
    async (signal) => {
      if (workload === "" || where === "") return "";
      for (const resource of WORKLOADS) {
        const object = (await json(objectPath(resource, where, workload), { signal }).catch((error: ApiError) => {
          if (error.code === 404 || error.code === 403) return undefined;
          throw error;
        })) as Item | undefined;
        if (object !== undefined) return selectorText(selectorOf(object));
      }
      throw new ApiError(404, "NotFound", `no workload "${workload}" in namespace ${where}`);
    },
    [where, workload],
  );
  return { labels: found.value ?? "", error: found.error };
}

export function Logs(): JSX.Element {
  useTitle("Logs");
  const where = asked("in") || namespace.value;
  const [workload, pod, labels, find, level] = [asked("workload"), asked("pod"), asked("labels"), asked("find"), asked("level")];
  const regular = asked("regex") !== "";
  const selector = useSelector(where, workload);
  const chosen = workload === "" ? labels : selector.labels;
  const ready = where !== "" && (workload === "" || selector.labels !== "");
  const pods = useObjects(ready ? { resource: PODS, namespace: where, labels: chosen, fields: pod === "" ? undefined : `metadata.name=${pod}` } : undefined);
  const followed = pods.rows.map((row) => row.object).filter((one) => text(one, "status", "phase") !== "Pending").slice(0, PODS_MAX);
  const store = useRef(new Ring<LogLine>(KEPT));
  const drawn = useSignal<readonly LogLine[]>([]);
  const paused = useSignal(false);
  const wrap = useSignal(false);
  const troubles = useSignal<Readonly<Record<string, string>>>({});
  const sieved = sieve({ find, level, regular });
  const fresh = useRef(false);
  const names = followed.flatMap((one) => list(one, "spec", "containers").map((container) => `${one.metadata.name}/${text(container, "name")}`)).sort();
  const form = `${where} ${names.join(" ")}`;
  const open = useRef(new Map<string, AbortController>());
  useEffect(() => {
    store.current.clear();
    drawn.value = [];
    troubles.value = {};
    return () => {
      for (const stop of open.current.values()) stop.abort();
      open.current.clear();
    };
  }, [where, workload, pod, labels]);
  useEffect(() => {
    for (const [name, stop] of open.current) {
      if (names.includes(name)) continue;
      stop.abort();
      open.current.delete(name);
    }
    for (const name of names) {
      if (open.current.has(name)) continue;
      const stop = new AbortController();
      open.current.set(name, stop);
      const [of = "", container = ""] = name.split("/");
      const one = followed.find((one) => one.metadata.name === of);
      if (one === undefined) continue;
      void read(one, container, stop.signal, (line) => {
        store.current.push(line);
        fresh.current = true;
      }, (why) => (troubles.value = { ...troubles.value, [name]: why }));
    }
  }, [form]);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!fresh.current || paused.value) return;
      fresh.current = false;
      drawn.value = store.current.last(KEPT);
    }, DRAW_MILLIS);
    const end = on(" ", () => (paused.value = !paused.value));
    return () => {
      clearInterval(timer);
      end();
    };
  }, []);
  const shown = useMemo(() => {
    const all = drawn.value.filter((line) => sieved.passes(line));
    // Lines of several pods come as they may; those that have a time stand by it.
    return names.length > 1 ? all.sort((a, b) => a.at - b.at || a.id - b.id) : all;
  }, [drawn.value, find, level, regular, names.length]);
  return (
    <div class="logs-page">
      <div class="page-head">
        <h1>Logs</h1>
        <div class="tools">
          <Choice where={where} workload={workload} />
          <label class="expression">
            <span>Find</span>
            <input data-find="" value={find} placeholder={regular ? "regular expression" : "words"} spellcheck={false} aria-invalid={sieved.error !== ""} title={sieved.error} onInput={(event) => say({ find: event.currentTarget.value })} />
          </label>
          <label>
            <span>Level</span>
            <select value={level} onChange={(event) => say({ level: event.currentTarget.value })}>
              <option value="">all</option>
              <option value="info">info and worse</option>
              <option value="warn">warnings and errors</option>
              <option value="error">errors</option>
            </select>
          </label>
          <label class="check">
            <input type="checkbox" checked={regular} onChange={(event) => say({ regex: event.currentTarget.checked ? "1" : undefined })} /> Regex
          </label>
          <label class="check">
            <input type="checkbox" checked={wrap.value} onChange={(event) => (wrap.value = event.currentTarget.checked)} /> Wrap
          </label>
          <button type="button" class="button" aria-pressed={paused.value} title="Space" onClick={() => (paused.value = !paused.value)}>
            {paused.value ? "Go on" : "Pause"}
          </button>
        </div>
      </div>
      {Object.entries(troubles.value).slice(0, 3).map(([name, why]) => (
        <p key={name} class="note is-busy">
          <Said text={`${name}: ${why}`} />
        </p>
      ))}
      {pods.rows.length > PODS_MAX ? <p class="note">The first {PODS_MAX} of {pods.rows.length} pods are followed.</p> : null}
      {store.current.dropped > 0 ? <p class="note">The newest {KEPT} lines are kept here.</p> : null}
      {where === "" ? (
        <Empty title="Whose logs?">Choose a namespace above, then a workload.</Empty>
      ) : selector.error !== undefined ? (
        <Failure error={selector.error} />
      ) : (
        (instead(pods, "pods", "Nothing runs here that could say anything.") ?? <Lines lines={shown} several={names.length > 1} names={names} wrap={wrap.value} paused={paused.value} />)
      )}
    </div>
  );
}

async function read(pod: Item, container: string, stop: AbortSignal, put: (line: LogLine) => void, trouble: (why: string) => void): Promise<void> {
  let since: string | undefined;
  while (!stop.aborted) {
    let seen = since;
    const skip = since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(since);
    try {
      const query = { container, follow: true, timestamps: true, ...(since === undefined ? { tailLines: TAIL } : { sinceTime: since }) };
      await lines(
        url(pathOf(PODS, pod, "log"), query),
        (said) => {
          const line = logLine(pod.metadata.name, container, withoutSequences(said));
          // What was read before the stream was cut is told once more.
          if (line.time !== "" && line.at <= skip) return;
          if (line.time !== "") seen = line.time;
          put(line);
        },
        { signal: stop, accept: "*/*" },
      );
    } catch (error) {
      if (stop.aborted) return;
      const refused = error instanceof ApiError ? error : undefined;
      trouble(told(error));
      if (refused?.code === 403 || refused?.code === 404) return;
    }
    since = seen;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLIS));
  }
}

function Choice({ where, workload }: { where: string; workload: string }): JSX.Element {
  const found = useAnswer(
    async (signal) => {
      if (where === "") return [];
      const all = await Promise.all(WORKLOADS.slice(0, 4).map((resource) => json(url(listPath(resource, where), { limit: 500 }), { signal }).catch(() => undefined)));
      return all.flatMap((found) => list(found, "items").map((item) => text(item, "metadata", "name"))).sort();
    },
    [where],
  );
  const names = found.value ?? [];
  return (
    <label>
      <span>Workload</span>
      <select value={workload} onChange={(event) => say({ workload: event.currentTarget.value, pod: undefined, labels: undefined })}>
        <option value="">all pods</option>
        {workload !== "" && !names.includes(workload) ? <option>{workload}</option> : null}
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

function Lines({ lines, several, names, wrap, paused }: { lines: readonly LogLine[]; several: boolean; names: readonly string[]; wrap: boolean; paused: boolean }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(600);
  const stuck = useRef(true);
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const resized = new ResizeObserver(() => (height.value = element.clientHeight));
    resized.observe(element);
    return () => resized.disconnect();
  }, []);
  useLayoutEffect(() => {
    const element = box.current;
    if (element !== null && stuck.current && !paused) element.scrollTop = element.scrollHeight;
  }, [lines, wrap]);
  const colour = useMemo(() => new Map(names.map((name, index) => [name, index % COLOURS])), [names.join(" ")]);
  // Wrapped lines are of any height: then the last of them are drawn, all at once.
  const first = wrap ? Math.max(0, lines.length - 500) : Math.max(0, Math.floor(top.value / LINE_PIXELS) - BEYOND);
  const last = wrap ? lines.length : Math.min(lines.length, Math.ceil((top.value + height.value) / LINE_PIXELS) + BEYOND);
  if (lines.length === 0) return <Empty title="No line yet">New ones are shown as they are written.</Empty>;
  return (
    <div
      ref={box}
      class={wrap ? "log log-wrap" : "log"}
      role="log"
      aria-live="off"
      aria-label={`${lines.length} lines`}
      tabIndex={0}
      onScroll={(event) => {
        const element = event.currentTarget;
        top.value = element.scrollTop;
        stuck.current = element.scrollTop + element.clientHeight >= element.scrollHeight - LINE_PIXELS * 2;
      }}
    >
      {wrap ? null : <div style={{ height: `${first * LINE_PIXELS}px` }} />}
      {lines.slice(first, last).map((line) => (
        <div key={line.id} class={`log-line level-${line.level || "none"}`}>
          <time title={exact(line.time)}>{line.time.slice(11, 23)}</time>
          {several ? <span class={`log-pod colour-${colour.get(`${line.pod}/${line.container}`) ?? 0}`}>{plain(line.pod)}</span> : null}
          <span class="log-text">{plain(line.text, 8000)}</span>
          {line.trace === "" ? null : <a href={href("traces", { id: line.trace })}>trace</a>}
        </div>
      ))}
      {wrap ? null : <div style={{ height: `${Math.max(0, lines.length - last) * LINE_PIXELS}px` }} />}
    </div>
  );
}
