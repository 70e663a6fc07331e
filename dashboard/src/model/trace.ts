/**
 * A trace as a waterfall: spans below those they were made in, each with its place in time.
 *
 * Invariants: every span is shown once, whatever its parent says: one that is not there, or a ring of them, makes it a root; order is by
 * beginning.
 */

import { at, count, flag, list, number, text } from "../kube/read";

export interface Span {
  readonly id: string;
  readonly parent: string;
  readonly kind: string;
  readonly workload: string;
  readonly namespace: string;
  readonly version: string;
  readonly peer: string;
  readonly service: string;
  readonly method: string;
  readonly path: string;
  readonly code: number;
  readonly grpc: number | undefined;
  readonly flags: string;
  readonly node: string;
  readonly began: number;
  readonly micros: number;
  readonly retries: readonly { readonly afterMicros: number; readonly address: string; readonly reason: string }[];
}

export interface Row {
  readonly span: Span;
  readonly depth: number;
  /** Where it begins and how long it is, as shares of the whole. */
  readonly from: number;
  readonly length: number;
  readonly failed: boolean;
}

export interface Waterfall {
  readonly rows: readonly Row[];
  readonly began: number;
  readonly micros: number;
}

/** A time with microseconds, as those: `Date` has milliseconds alone. */
export function microsOf(time: string): number {
  const whole = Date.parse(time);
  if (!Number.isFinite(whole)) return 0;
  const fraction = /\.(\d+)/.exec(time)?.[1] ?? "";
  const micros = Number(fraction.padEnd(6, "0").slice(0, 6));
  return Math.floor(whole / 1000) * 1e6 + (Number.isFinite(micros) ? micros : 0);
}

function spanOf(said: unknown): Span {
  return {
    id: text(said, "spanID"),
    parent: text(said, "parentID"),
    kind: text(said, "kind"),
    workload: text(said, "workload", "name"),
    namespace: text(said, "workload", "namespace"),
    version: text(said, "workload", "version"),
    peer: text(said, "peer", "name"),
    service: text(said, "service", "name"),
    method: text(said, "method"),
    path: text(said, "path"),
    code: count(said, "code"),
    grpc: number(said, "grpcStatus"),
    flags: text(said, "flags"),
    node: text(said, "node"),
    began: microsOf(text(said, "began")),
    micros: count(said, "durationMicros"),
    retries: list(said, "retries").map((retry) => ({ afterMicros: count(retry, "afterMicros"), address: text(retry, "address"), reason: text(retry, "reason") })),
  };
}

const GRPC_FAILURES = new Set([2, 4, 12, 13, 14, 15]);

/** Whether it is a failure of whoever was called. */
export function spanFailed(span: Pick<Span, "code" | "grpc" | "flags">): boolean {
  if (span.grpc !== undefined && span.code === 200) return GRPC_FAILURES.has(span.grpc);
  return span.code >= 500 || (span.code === 0 && span.flags !== "DC");
}

export function waterfall(trace: unknown): Waterfall {
  const spans = list(trace, "spans").map(spanOf);
  const byId = new Map(spans.map((span) => [span.id, span]));
  const below = new Map<string, Span[]>();
  const roots: Span[] = [];
  for (const span of spans) {
    const isBelow = span.parent !== "" && byId.has(span.parent) && !ring(span, byId);
    if (isBelow) below.set(span.parent, [...(below.get(span.parent) ?? []), span]);
    else roots.push(span);
  }
  const began = spans.reduce((first, span) => Math.min(first, span.began), Number.POSITIVE_INFINITY);
  const ended = spans.reduce((last, span) => Math.max(last, span.began + span.micros), 0);
  const whole = Math.max(1, ended - began);
  const rows: Row[] = [];
  const walk = (all: readonly Span[], depth: number) => {
    for (const span of [...all].sort((a, b) => a.began - b.began)) {
      rows.push({ span, depth, from: (span.began - began) / whole, length: span.micros / whole, failed: spanFailed(span) });
      walk(below.get(span.id) ?? [], depth + 1);
    }
  };
  walk(roots, 0);
  return { rows, began: Number.isFinite(began) ? began : 0, micros: spans.length === 0 ? 0 : whole };
}

function ring(span: Span, byId: ReadonlyMap<string, Span>): boolean {
  const seen = new Set<string>([span.id]);
  let here = byId.get(span.parent);
  while (here !== undefined) {
    if (seen.has(here.id)) return true;
    seen.add(here.id);
    here = byId.get(here.parent);
  }
  return false;
}

export interface Summary {
  readonly id: string;
  readonly namespace: string;
  readonly began: string;
  readonly micros: number;
  readonly failed: boolean;
  readonly slow: boolean;
  readonly spans: number;
  readonly services: readonly string[];
  readonly root: Span;
}

export function summaries(listed: unknown): Summary[] {
  return list(listed, "items").map((item) => ({
    id: text(item, "metadata", "name"),
    namespace: text(item, "metadata", "namespace"),
    began: text(item, "began"),
    micros: count(item, "durationMicros"),
    failed: flag(item, "failed"),
    slow: flag(item, "slow"),
    spans: count(item, "spanCount"),
    services: list(item, "services").filter((one): one is string => typeof one === "string"),
    root: spanOf(at(item, "root")),
  }));
}
