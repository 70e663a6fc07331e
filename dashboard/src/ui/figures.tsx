/** Figures of calls as cells and tables: the same words for the same thing on every page. */

import type { JSX } from "preact";

import type { Badge } from "../model/graph";
import { failed, health, NO_FIGURES, sum, type Figures, type Seen, type Snapshot } from "../model/mesh";
import { micros, NOTHING, percent, rate } from "../model/format";
import { HealthWord, Link, Said } from "./words";
import { Table, type Col } from "./table";
import { nameOf, type Resource } from "../kube/resource";

/** The share of calls that went well, marked where too few did. */
export function Success({ of }: { of: Figures }): JSX.Element {
  const is = health(of);
  if (is === "idle") return <span class="muted">{NOTHING}</span>;
  return <span class={`is-${is === "ok" ? "ok" : is === "degraded" ? "busy" : "bad"}-text`}>{percent(1 - failed(of))}</span>;
}

export function figureCols<Row>(of: (row: Row) => Figures): Col<Row>[] {
  const cell = (row: Row, shown: (figures: Figures) => string) => {
    const figures = of(row);
    return figures.calls > 0 ? shown(figures) : <span class="muted">{NOTHING}</span>;
  };
  return [
    { id: "rate", title: "Calls", width: 84, right: true, by: (row) => of(row).calls, cell: (row) => cell(row, (figures) => rate(figures.calls)) },
    { id: "success", title: "Success", width: 88, right: true, by: (row) => (of(row).calls > 0 ? 1 - failed(of(row)) : 2), cell: (row) => <Success of={of(row)} /> },
    { id: "p50", title: "p50", width: 80, right: true, spare: true, by: (row) => of(row).p50, cell: (row) => cell(row, (figures) => micros(figures.p50)) },
    { id: "p95", title: "p95", width: 80, right: true, by: (row) => of(row).p95, cell: (row) => cell(row, (figures) => micros(figures.p95)) },
    { id: "p99", title: "p99", width: 80, right: true, spare: true, by: (row) => of(row).p99, cell: (row) => cell(row, (figures) => micros(figures.p99)) },
  ];
}

/** Calls that a workload takes, or makes. */
export function figuresOf(snapshot: Snapshot, end: "source" | "destination", namespace: string, name: string): Figures {
  const told = end === "destination" ? snapshot.workloads.get(`${namespace}/${name}`) : undefined;
  if (told !== undefined) return told;
  const own = snapshot.seen.filter(({ edge }) => edge[end].namespace === namespace && edge[end].workload === name);
  return own.length === 0 ? NO_FIGURES : sum(own.map((one) => one.figures));
}

/** What policies do, each as a sentence. */
export function Badges({ of }: { of: readonly Badge[] }): JSX.Element | null {
  if (of.length === 0) return null;
  return (
    <ul class="badges">
      {of.map((badge) => (
        <li key={badge.text} class={`badge badge-${badge.kind}`}>
          <Said text={badge.text} />
        </li>
      ))}
    </ul>
  );
}

const WAYS: Readonly<Record<string, string>> = { mutual_tls: "mTLS", in_process: "same node", none: "nobody reached", mixed: "mTLS, same node" };

export function way(security: string): string {
  return WAYS[security] ?? security;
}

export function EdgeTable({ label, seen, kindOf }: { label: string; seen: readonly Seen[]; kindOf?: ((namespace: string, name: string) => Resource | undefined) | undefined }): JSX.Element {
  const end = (namespace: string, name: string, version: string) => {
    const kind = kindOf?.(namespace, name);
    const said = <Said text={name === "" ? "(nobody)" : version === "" ? name : `${name} ${version}`} />;
    const named = (
      <>
        {kind === undefined ? said : <Link page="workload" query={{ kind: nameOf(kind), in: namespace, name }}>{said}</Link>}
        <span class="muted"> {namespace}</span>
      </>
    );
    return named;
  };
  const cols: Col<Seen>[] = [
    { id: "health", title: "State", width: 96, by: ({ figures }) => health(figures), cell: ({ figures }) => <HealthWord health={health(figures)} /> },
    { id: "from", title: "From", by: ({ edge }) => edge.source.workload, cell: ({ edge }) => end(edge.source.namespace, edge.source.workload, edge.source.version) },
    { id: "to", title: "To", by: ({ edge }) => edge.destination.workload, cell: ({ edge }) => end(edge.destination.namespace, edge.destination.workload, edge.destination.version) },
    { id: "service", title: "Service", spare: true, by: ({ edge }) => edge.service.name, cell: ({ edge }) => <Said text={edge.service.name} /> },
    { id: "way", title: "Way", width: 148, spare: true, by: ({ edge }) => edge.security, cell: ({ edge }) => `${edge.protocol}, ${way(edge.security)}` },
    ...figureCols<Seen>((row) => row.figures),
  ];
  return <Table label={label} short rows={seen} cols={cols} id={({ edge }) => edge.id} sort="rate" descending />;
}
