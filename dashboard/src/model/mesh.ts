/**
 * Who calls whom, put together from the server's frames: what is known of each edge, and how it went in the last moment.
 *
 * Invariants: a frame that says `whole` replaces everything; one that was cut short or is of another shape changes nothing that it does
 * not say; sums of the last `TOTALS_KEPT` seconds are kept, and no more.
 */

import { at, count, flag, list, number, text } from "../kube/read";
import { Ring } from "./ring";
import { NO_USAGE, type Usage } from "./usage";

/** Seconds of which the sums over all edges are kept, for the curves beside the figures. */
export const TOTALS_KEPT = 300;
/** Frames by which an edge is failing, where they have `RECENT_CALLS_MIN` calls. */
const RECENT_FRAMES = 2;
const RECENT_CALLS_MIN = 5;
/** So many calls of one frame, none of which failed, say that it fails no longer. */
const CLEAR_CALLS_MIN = 10;
const DEGRADED_SHARE = 0.01;
const FAILING_SHARE = 0.1;

export interface End {
  readonly namespace: string;
  readonly workload: string;
  readonly version: string;
  readonly principal: string;
}

export interface Edge {
  readonly id: string;
  readonly source: End;
  readonly destination: End;
  readonly service: { readonly namespace: string; readonly name: string };
  readonly protocol: string;
  readonly security: string;
}

export interface Figures {
  readonly calls: number;
  readonly failures: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly bytes: number;
  /** Calls and failures of the last moment, where there were enough to judge by. */
  readonly recent: { readonly calls: number; readonly failures: number } | undefined;
}

export type Health = "ok" | "degraded" | "failing" | "idle";

export interface Fault {
  /** Milliseconds that some calls wait, and of how many in a hundred. */
  readonly delay: readonly [number, number] | undefined;
  /** The status that some calls are answered with, and how many in a hundred. */
  readonly abort: readonly [number, number] | undefined;
  /** When it ends, in seconds since 1970; 0 where that is not told. */
  readonly until: number;
}

export interface Policies {
  readonly ejected: number;
  readonly endpoints: number;
  readonly faults: readonly Fault[];
  readonly retries: number;
  readonly timeoutMillis: number | undefined;
  readonly backends: readonly { readonly namespace: string; readonly name: string; readonly weight: number }[];
}

export interface Seen {
  readonly edge: Edge;
  readonly figures: Figures;
}

export interface Total {
  readonly at: number;
  readonly calls: number;
  readonly failures: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** All there is to see at one time. */
export interface Snapshot {
  readonly at: number;
  readonly seen: readonly Seen[];
  readonly policies: ReadonlyMap<string, Policies>;
  readonly total: Total;
  /** Calls that each workload takes, where the server summed them up: its quantiles are exact. */
  readonly workloads: ReadonlyMap<string, Figures>;
}

export const NO_FIGURES: Figures = { calls: 0, failures: 0, p50: 0, p95: 0, p99: 0, bytes: 0, recent: undefined };
const NO_TOTAL: Total = { at: 0, calls: 0, failures: 0, p50: 0, p95: 0, p99: 0 };
export const NOTHING_SEEN: Snapshot = { at: 0, seen: [], policies: new Map(), total: NO_TOTAL, workloads: new Map() };

function end(value: unknown): End {
  return { namespace: text(value, "namespace"), workload: text(value, "workload"), version: text(value, "version"), principal: text(value, "principal") };
}

function edgeOf(value: unknown, id: string): Edge {
  return {
    id,
    source: end(at(value, "source")),
    destination: end(at(value, "destination")),
    service: { namespace: text(value, "service", "namespace"), name: text(value, "service", "name") },
    protocol: text(value, "protocol"),
    security: text(value, "security"),
  };
}

export function policiesOf(value: unknown): Policies {
  return {
    ejected: count(value, "breaker", "ejected"),
    endpoints: count(value, "breaker", "endpoints"),
    faults: list(value, "faults").map((fault): Fault => {
      const [delay, abort] = [number(fault, "delayMillis"), number(fault, "abort")];
      return {
        delay: delay === undefined ? undefined : [delay, number(fault, "delayPercent") ?? 100],
        abort: abort === undefined ? undefined : [abort, number(fault, "abortPercent") ?? 100],
        until: count(fault, "until"),
      };
    }),
    retries: count(value, "retries", "attempts"),
    timeoutMillis: number(value, "timeoutMillis"),
    backends: list(value, "backends").map((backend) => ({ namespace: text(backend, "namespace"), name: text(backend, "name"), weight: count(backend, "weight") })),
  };
}

/** Figures of several edges as those of one. Quantiles cannot be summed up exactly: they are weighted by calls. */
export function sum(all: readonly Figures[]): Figures {
  const calls = all.reduce((calls, one) => calls + one.calls, 0);
  const weighted = (of: (one: Figures) => number) => (calls === 0 ? 0 : all.reduce((sum, one) => sum + of(one) * one.calls, 0) / calls);
  const recent = all.some((one) => one.recent !== undefined)
    ? {
        calls: all.reduce((sum, one) => sum + (one.recent?.calls ?? 0), 0),
        failures: all.reduce((sum, one) => sum + (one.recent?.failures ?? 0), 0),
      }
    : undefined;
  return {
    calls,
    failures: all.reduce((sum, one) => sum + one.failures, 0),
    p50: weighted((one) => one.p50),
    p95: weighted((one) => one.p95),
    p99: weighted((one) => one.p99),
    bytes: all.reduce((sum, one) => sum + one.bytes, 0),
    recent,
  };
}

/** The share of calls that failed. */
export function failed(figures: Pick<Figures, "calls" | "failures">): number {
  return figures.calls > 0 ? Math.min(1, figures.failures / figures.calls) : 0;
}

/** Failing is about now, degraded about the whole window: an edge with few failures does not flicker, one that is well again is seen to be. */
export function health(figures: Figures): Health {
  if (figures.calls <= 0) return "idle";
  const now = figures.recent !== undefined && figures.recent.calls >= RECENT_CALLS_MIN ? failed(figures.recent) : failed(figures);
  if (now >= FAILING_SHARE) return "failing";
  return Math.max(now, failed(figures)) >= DEGRADED_SHARE ? "degraded" : "ok";
}

/** A list of edges, as it is of a time that is over. */
export function snapshotOf(listed: unknown): Snapshot {
  const policies = new Map<string, Policies>();
  const seen = list(listed, "items").map((item) => {
    const edge = edgeOf(item, text(item, "metadata", "name") || JSON.stringify([at(item, "source"), at(item, "destination"), at(item, "service"), text(item, "security")]));
    if (at(item, "policies") !== undefined) policies.set(`${edge.service.namespace}/${edge.service.name}`, policiesOf(at(item, "policies")));
    const figures: Figures = {
      calls: count(item, "callsPerSecond"),
      failures: count(item, "failuresPerSecond"),
      p50: count(item, "latencyMicros", "p50"),
      p95: number(item, "latencyMicros", "p95") ?? count(item, "latencyMicros", "p90"),
      p99: count(item, "latencyMicros", "p99"),
      bytes: count(item, "requestBytesPerSecond") + count(item, "responseBytesPerSecond"),
      recent: undefined,
    };
    return { edge, figures };
  });
  const time = Date.parse(text(listed, "time"));
  const when = Number.isFinite(time) ? time : 0;
  return { at: when, seen, policies, total: totalOf(when, seen, at(listed, "total")), workloads: new Map() };
}

function totalOf(when: number, seen: readonly Seen[], said: unknown): Total {
  const all = sum(seen.map((one) => one.figures));
  if (Array.isArray(said)) {
    const [calls, failures, p50, p95, p99] = said.map((value) => (typeof value === "number" ? value : 0));
    return { at: when, calls: calls ?? 0, failures: failures ?? 0, p50: p50 ?? 0, p95: p95 ?? 0, p99: p99 ?? 0 };
  }
  const quantile = (name: "p50" | "p95" | "p99") => number(said, "latencyMicros", name) ?? all[name];
  return { at: when, calls: all.calls, failures: all.failures, p50: quantile("p50"), p95: quantile("p95"), p99: quantile("p99") };
}

/** Rows of the server's own sums; what was judged of the last moment is that of the edges. */
function workloadsOf(rows: readonly unknown[], seen: readonly Seen[]): Map<string, Figures> {
  const edges = new Map<string, Figures[]>();
  for (const { edge, figures } of seen) {
    const key = `${edge.destination.namespace}/${edge.destination.workload}`;
    const known = edges.get(key);
    if (known === undefined) edges.set(key, [figures]);
    else known.push(figures);
  }
  const all = new Map([...edges].map(([key, figures]) => [key, sum(figures)]));
  for (const row of rows) {
    const key = `${text(row, 0)}/${text(row, 1)}`;
    const known = all.get(key) ?? NO_FIGURES;
    all.set(key, { ...known, calls: count(row, 2), failures: count(row, 3), p50: count(row, 4), p95: count(row, 5), p99: count(row, 6) });
  }
  return all;
}

interface Known {
  readonly edge: Edge;
  readonly recent: { calls: number; failures: number }[];
}

/** What frames come to. */
export class Mesh {
  readonly totals = new Ring<Total>(TOTALS_KEPT);
  readonly nodes = new Map<string, Usage>();
  readonly pods = new Map<string, Usage>();
  snapshot: Snapshot = NOTHING_SEEN;
  skipped = 0;
  #edges = new Map<number, Known>();
  #policies: ReadonlyMap<string, Policies> = new Map();

  /** Takes up a frame; says whether it was one. */
  take(frame: unknown): boolean {
    if (text(frame, "kind") !== "Frame") return false;
    const time = Date.parse(text(frame, "time"));
    if (flag(frame, "whole")) this.#edges.clear();
    this.skipped += count(frame, "skipped");
    for (const added of list(frame, "edges", "added")) {
      const id = number(added, "id");
      if (id !== undefined) this.#edges.set(id, { edge: edgeOf(added, String(id)), recent: [] });
    }
    for (const id of list(frame, "edges", "removed")) if (typeof id === "number") this.#edges.delete(id);
    const services = at(frame, "services");
    if (Array.isArray(services)) this.#policies = new Map(services.map((said) => [`${text(said, "namespace")}/${text(said, "name")}`, policiesOf(said)]));
    this.#usage(frame);
    const when = Number.isFinite(time) ? time : this.snapshot.at + 1000;
    const seen = this.#figures(list(frame, "edges", "figures"));
    const total = totalOf(when, seen, at(frame, "total"));
    this.totals.push(total);
    this.snapshot = { at: when, seen, policies: this.#policies, total, workloads: workloadsOf(list(frame, "workloads"), seen) };
    return true;
  }

  #figures(told: readonly unknown[]): Seen[] {
    const rows = new Map<number, readonly unknown[]>();
    for (const row of told) if (Array.isArray(row) && typeof row[0] === "number") rows.set(row[0], row);
    const seen: Seen[] = [];
    for (const [id, known] of this.#edges) {
      const row = rows.get(id) ?? [];
      const figure = (index: number) => (typeof row[index] === "number" ? (row[index] as number) : 0);
      known.recent.push({ calls: figure(8), failures: figure(9) });
      if (known.recent.length > RECENT_FRAMES) known.recent.shift();
      const last = known.recent.at(-1);
      const isClear = last !== undefined && last.calls >= CLEAR_CALLS_MIN && last.failures === 0;
      const judged = isClear ? [last] : known.recent;
      const recent = judged.reduce((sum, one) => ({ calls: sum.calls + one.calls, failures: sum.failures + one.failures }), { calls: 0, failures: 0 });
      const figures = { calls: figure(1), failures: figure(2), p50: figure(3), p95: figure(4), p99: figure(5), bytes: figure(6) + figure(7), recent };
      seen.push({ edge: known.edge, figures });
    }
    return seen;
  }

  #usage(frame: unknown): void {
    const nodes = list(frame, "nodes");
    if (nodes.length > 0) this.nodes.clear();
    // Of pods, only those are told again that changed.
    if (flag(frame, "whole")) this.pods.clear();
    for (const row of nodes) this.nodes.set(text(row, 0), { ...NO_USAGE, milliCores: count(row, 1) / 1e6, bytes: count(row, 2) });
    for (const row of list(frame, "pods")) this.pods.set(`${text(row, 0)}/${text(row, 1)}`, { milliCores: count(row, 2) / 1e6, bytes: count(row, 3), calls: count(row, 4), instances: count(row, 5), starts: count(row, 6) });
  }
}
