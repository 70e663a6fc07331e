/** Calls as they end, one line each, as many as fit: what is asked for is chosen at the nodes, so that little travels. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { lines, told, url } from "../kube/http";
import { count, list, number, text } from "../kube/read";
import { clock, micros } from "../model/format";
import { Ring } from "../model/ring";
import { spanFailed } from "../model/trace";
import { useTitle } from "../ui/hooks";
import { way } from "../ui/figures";
import { on } from "../ui/keys";
import { meshPath } from "../ui/live";
import { asked, href, namespace, say } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { Empty, Failure, Said, Standing } from "../ui/words";
import { ApiError } from "../kube/http";

const KEPT = 2000;
const DRAW_MILLIS = 250;

interface Call {
  readonly id: number;
  readonly at: number;
  readonly time: string;
  readonly from: string;
  readonly to: string;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly code: number;
  readonly grpc: number | undefined;
  readonly flags: string;
  readonly micros: number;
  readonly security: string;
  readonly retries: number;
  readonly trace: string;
  readonly failed: boolean;
}

let last = 0;

function call(said: unknown): Call {
  const end = (which: string) => text(said, which, "workload") || "(nobody)";
  last += 1;
  const [code, grpc, flags] = [count(said, "code"), number(said, "grpcStatus"), text(said, "flags")];
  return {
    id: last,
    at: Date.parse(text(said, "time")),
    time: text(said, "time"),
    from: end("source"),
    to: end("destination"),
    method: text(said, "method"),
    path: text(said, "path"),
    authority: text(said, "authority"),
    code,
    grpc,
    flags: flags === "-" ? "" : flags,
    micros: count(said, "durationMicros"),
    security: text(said, "security"),
    retries: list(said, "retries").length,
    trace: text(said, "traceID") || text(said, "traceId"),
    failed: spanFailed({ code, grpc, flags }),
  };
}

const COLS: readonly Col<Call>[] = [
  { id: "time", title: "Time", width: 96, by: (one) => one.at, cell: (one) => <time title={one.time}>{clock(one.at)}</time> },
  { id: "from", title: "From", width: 120, by: (one) => one.from, cell: (one) => <Said text={one.from} /> },
  { id: "to", title: "To", width: 120, by: (one) => one.to, cell: (one) => <Said text={one.to} /> },
  {
    id: "call",
    title: "Call",
    by: (one) => one.path,
    cell: (one) => (
      <span title={one.authority}>
        <Said text={`${one.method} ${one.path}`} class="mono" />
      </span>
    ),
  },
  {
    id: "code",
    title: "Answer",
    width: 108,
    by: (one) => one.code,
    cell: (one) => <Standing is={one.failed ? "bad" : one.code >= 400 ? "busy" : "ok"} word={`${one.code === 0 ? "none" : one.code}${one.grpc === undefined ? "" : ` grpc ${one.grpc}`} ${one.flags}`.trim()} />,
  },
  { id: "took", title: "Took", width: 88, right: true, by: (one) => one.micros, cell: (one) => micros(one.micros) },
  { id: "way", title: "Way", width: 112, spare: true, by: (one) => one.security, cell: (one) => way(one.security) },
  { id: "retries", title: "Again", width: 62, right: true, spare: true, by: (one) => one.retries, cell: (one) => (one.retries === 0 ? "" : one.retries) },
  { id: "trace", title: "Trace", width: 90, spare: true, cell: (one) => (one.trace === "" ? "" : <a href={href("traces", { id: one.trace })}><Said text={one.trace.slice(0, 8)} class="mono" /></a>) },
];

export function Tap(): JSX.Element {
  useTitle("Tap");
  const ns = asked("in") || namespace.value;
  const [workload, service, method, path, code, slower] = [asked("workload"), asked("service"), asked("method"), asked("path"), asked("code"), asked("slower")];
  const kept = useRef(new Ring<Call>(KEPT));
  const shown = useSignal<readonly Call[]>([]);
  const paused = useSignal(false);
  const refusal = useSignal<ApiError | undefined>(undefined);
  const notes = useSignal<readonly string[]>([]);
  const lost = useSignal(0);
  useEffect(() => {
    const stop = new AbortController();
    kept.current.clear();
    shown.value = [];
    refusal.value = undefined;
    notes.value = [];
    lost.value = 0;
    let fresh = false;
    const timer = setInterval(() => {
      if (fresh && !paused.value) shown.value = kept.current.last(KEPT);
      fresh = false;
    }, DRAW_MILLIS);
    const take = (line: string) => {
      const said: unknown = JSON.parse(line);
      const dropped = number(said, "lost");
      if (dropped !== undefined) lost.value += dropped;
      else if (text(said, "warning") !== "") notes.value = [...new Set([...notes.value, text(said, "warning")])].slice(-3);
      else {
        kept.current.push(call(said));
        fresh = true;
      }
    };
    const query = { watch: true, workload, service, method: method.toUpperCase(), path, code, slowerThan: slower, reporter: "source" };
    const run = async () => {
      while (!stop.signal.aborted) {
        try {
          await lines(url(meshPath("tap", ns), query), take, { signal: stop.signal });
        } catch (error) {
          if (stop.signal.aborted) return;
          refusal.value = error instanceof ApiError ? error : new ApiError(0, "", told(error));
          if (refusal.value.code >= 400 && refusal.value.code < 500 && refusal.value.code !== 429) return;
        }
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    };
    void run();
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [ns, workload, service, method, path, code, slower]);
  useEffect(() => on(" ", () => (paused.value = !paused.value)), []);
  const field = (name: string, title: string, value: string, placeholder: string, find = false) => (
    <label class="expression">
      <span>{title}</span>
      <input data-find={find ? "" : undefined} value={value} placeholder={placeholder} spellcheck={false} autocomplete="off" onChange={(event) => say({ [name]: event.currentTarget.value.trim() })} />
    </label>
  );
  return (
    <>
      <div class="page-head">
        <h1>Tap</h1>
        <div class="tools">
          {field("workload", "Workload", workload, "any", true)}
          {field("service", "Service", service, "any")}
          {field("method", "Method", method, "any")}
          {field("path", "Path begins", path, "/")}
          {field("code", "Answer", code, "5xx, 404, 0")}
          {field("slower", "Slower than ms", slower, "0")}
          <button type="button" class="button" aria-pressed={paused.value} title="Space" onClick={() => (paused.value = !paused.value)}>
            {paused.value ? "Go on" : "Pause"}
          </button>
        </div>
      </div>
      {lost.value > 0 ? <p class="note is-busy">{lost.value} calls were not told, as this reads too slowly: ask for fewer.</p> : null}
      {notes.value.map((note) => (
        <p key={note} class="note is-busy">
          <Said text={note} />
        </p>
      ))}
      {refusal.value !== undefined && shown.value.length === 0 ? (
        <Failure error={refusal.value} />
      ) : shown.value.length === 0 ? (
        <Empty title="No call has ended yet">Calls that fit are shown as they end.</Empty>
      ) : (
        <Table label="Calls" rows={shown.value} cols={COLS} id={(one) => String(one.id)} sort="time" descending />
      )}
    </>
  );
}
