/**
 * The picture of who calls whom: edges of the mesh as nodes and arrows, by what the user wants to see as a node.
 *
 * ```text
 * workloads   what calls and what answers
 * versions    the same, each version apart
 * services    workload → Service → workload, with the shares that a route gives each
 * ```
 * Invariants: equal edges make an equal graph, in the same order; an arrow's figures are those of its edges together; what has no calls is
 * there as long as the mesh knows of it.
 */

import { failed, health, sum, type End, type Figures, type Health, type Policies, type Seen, type Snapshot } from "./mesh";

export type Mode = "workloads" | "versions" | "services";

export interface Node {
  readonly id: string;
  readonly label: string;
  /** Below the label: the version, or what the node is. */
  readonly detail: string;
  readonly namespace: string;
  readonly kind: "workload" | "service" | "outside" | "nobody";
  readonly name: string;
  readonly figures: Figures;
  readonly health: Health;
  readonly badges: readonly Badge[];
}

export interface Arrow {
  readonly id: string;
  readonly from: string;
  readonly to: string;
  readonly figures: Figures;
  readonly health: Health;
  readonly security: string;
  readonly protocol: string;
  readonly services: readonly string[];
  readonly badges: readonly Badge[];
}

export type BadgeKind = "breaker" | "fault" | "retry" | "timeout" | "weight";

export interface Badge {
  readonly kind: BadgeKind;
  readonly text: string;
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly arrows: readonly Arrow[];
}

interface Draft {
  readonly from: string;
  readonly to: string;
  readonly figures: Figures[];
  readonly securities: Set<string>;
  readonly protocols: Set<string>;
  readonly services: Set<string>;
}

/** What policies do to calls of a Service, most urgent first. */
export function badgesOf(policies: Policies | undefined): Badge[] {
  if (policies === undefined) return [];
  const badges: Badge[] = [];
  if (policies.ejected > 0) badges.push({ kind: "breaker", text: `breaker open: ${policies.ejected} of ${policies.endpoints} endpoints left alone` });
  for (const fault of policies.faults) {
    const parts = [
      ...(fault.abort === undefined ? [] : [`${fault.abort[1]} % of calls are answered ${fault.abort[0]}`]),
      ...(fault.delay === undefined ? [] : [`${fault.delay[1]} % wait ${fault.delay[0]} ms`]),
    ];
    badges.push({ kind: "fault", text: `fault: ${parts.join(", ")}` });
  }
  if (policies.backends.length > 1) {
    const total = policies.backends.reduce((sum, backend) => sum + backend.weight, 0) || 1;
    badges.push({ kind: "weight", text: policies.backends.map((backend) => `${backend.name} ${Math.round((backend.weight / total) * 100)} %`).join(", ") });
  }
  if (policies.retries > 0) badges.push({ kind: "retry", text: `tried again up to ${policies.retries} times` });
  if (policies.timeoutMillis !== undefined) badges.push({ kind: "timeout", text: `has ${policies.timeoutMillis} ms` });
  return badges;
}

function idOf(end: End, mode: Mode): string {
  const version = mode === "versions" ? `@${end.version}` : "";
  return `w:${end.namespace}/${end.workload}${version}`;
}

export function graphOf(snapshot: Snapshot, mode: Mode): Graph {
  const nodes = new Map<string, Omit<Node, "figures" | "health">>();
  const drafts = new Map<string, Draft>();
  const workload = (end: End): string => {
    const id = idOf(end, mode);
    if (!nodes.has(id)) {
      const outside = end.namespace === "";
      const detail = mode === "versions" ? end.version : "";
      nodes.set(id, { id, label: end.workload, detail, namespace: end.namespace, kind: outside ? "outside" : "workload", name: end.workload, badges: [] });
    }
    return id;
  };
  const service = (namespace: string, name: string, kind: "service" | "nobody"): string => {
    const id = `${kind === "service" ? "s" : "n"}:${namespace}/${name}`;
    if (!nodes.has(id)) {
      const badges = badgesOf(snapshot.policies.get(`${namespace}/${name}`));
      nodes.set(id, { id, label: name, detail: kind === "service" ? "service" : "nobody ready", namespace, kind, name, badges });
    }
    return id;
  };
  const draw = (from: string, to: string, { edge, figures }: Seen) => {
    const id = `${from}>${to}`;
    let draft = drafts.get(id);
    if (draft === undefined) {
      draft = { from, to, figures: [], securities: new Set(), protocols: new Set(), services: new Set() };
      drafts.set(id, draft);
    }
    draft.figures.push(figures);
    // Calls that nobody took have no way; they say nothing of the others'.
    if (edge.security !== "none" && edge.security !== "") draft.securities.add(edge.security);
    draft.protocols.add(edge.protocol);
    if (edge.service.name !== "") draft.services.add(`${edge.service.namespace}/${edge.service.name}`);
  };
  // Calls that reached nobody are drawn to who would have answered, where that is known: the same Service has one destination else.
  const answering = new Map<string, End>();
  for (const { edge } of snapshot.seen) if (edge.destination.workload !== "" && edge.service.name !== "") answering.set(`${edge.service.namespace}/${edge.service.name}`, edge.destination);
  for (const one of snapshot.seen) {
    const { edge } = one;
    const called = `${edge.service.namespace}/${edge.service.name}`;
    const from = workload(edge.source);
    const destination = edge.destination.workload === "" ? answering.get(called) : edge.destination;
    if (mode === "services" && edge.service.name !== "") {
      const through = service(edge.service.namespace, edge.service.name, "service");
      draw(from, through, one);
      if (edge.destination.workload !== "") draw(through, workload(edge.destination), one);
      continue;
    }
    const to = destination === undefined ? service(edge.service.namespace, edge.service.name, "nobody") : workload(destination);
    draw(from, to, one);
  }
  const arrows = [...drafts.entries()].map(([id, draft]): Arrow => {
    const figures = sum(draft.figures);
    const badges = mode === "services" && !draft.to.startsWith("s:") ? [] : [...draft.services].flatMap((name) => badgesOf(snapshot.policies.get(name)));
    return {
      id,
      from: draft.from,
      to: draft.to,
      figures,
      health: health(figures),
      security: draft.securities.size === 1 ? [...draft.securities].join("") : draft.securities.size === 0 ? "none" : "mixed",
      protocol: [...draft.protocols].sort().join(", "),
      services: [...draft.services].sort(),
      badges: unique(badges),
    };
  });
  const incoming = new Map<string, Figures[]>();
  for (const arrow of arrows) incoming.set(arrow.to, [...(incoming.get(arrow.to) ?? []), arrow.figures]);
  const drawn = [...nodes.values()].map((node): Node => {
    const figures = sum(incoming.get(node.id) ?? []);
    return { ...node, figures, health: health(figures) };
  });
  const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
  return { nodes: drawn.sort(byId), arrows: arrows.sort(byId) };
}

function unique(badges: readonly Badge[]): Badge[] {
  const seen = new Set<string>();
  return badges.filter((badge) => !seen.has(badge.text) && seen.add(badge.text));
}

/** Only what can be reached from a node, or reaches it, over so many arrows. */
export function around(graph: Graph, centre: string, hops: number): Graph {
  const kept = new Set([centre]);
  const spread = (from: "from" | "to", to: "from" | "to") => {
    let edge = new Set([centre]);
    for (let hop = 0; hop < hops && edge.size > 0; hop += 1) {
      const next = new Set<string>();
      for (const arrow of graph.arrows) if (edge.has(arrow[from]) && !next.has(arrow[to])) next.add(arrow[to]);
      for (const id of next) kept.add(id);
      edge = next;
    }
  };
  spread("from", "to");
  spread("to", "from");
  return only(graph, (node) => kept.has(node.id));
}

/** Nodes that pass, and the arrows between them. */
export function only(graph: Graph, passes: (node: Node) => boolean): Graph {
  const nodes = graph.nodes.filter(passes);
  const kept = new Set(nodes.map((node) => node.id));
  return { nodes, arrows: graph.arrows.filter((arrow) => kept.has(arrow.from) && kept.has(arrow.to)) };
}

/** What a picture has to be drawn anew for, as its figures need no other place. */
export function shape(graph: Graph): string {
  return `${graph.nodes.map((node) => node.id).join("\n")}\n\n${graph.arrows.map((arrow) => arrow.id).join("\n")}`;
}

/** Nodes beyond which namespaces are drawn as one node each, as nobody reads a picture of more. */
export const NODES_MAX = 120;

/** A graph whose nodes are namespaces. */
export function byNamespace(graph: Graph): Graph {
  const name = (node: Node | undefined) => `ns:${node?.namespace ?? ""}`;
  const of = new Map(graph.nodes.map((node) => [node.id, node]));
  const nodes = new Map<string, Node>();
  for (const node of graph.nodes) {
    const id = name(node);
    if (!nodes.has(id)) nodes.set(id, { ...node, id, label: node.namespace || "outside", detail: "namespace", name: node.namespace, kind: "workload", badges: [] });
  }
  const drafts = new Map<string, Arrow[]>();
  for (const arrow of graph.arrows) {
    const id = `${name(of.get(arrow.from))}>${name(of.get(arrow.to))}`;
    drafts.set(id, [...(drafts.get(id) ?? []), arrow]);
  }
  const arrows = [...drafts.entries()].map(([id, all]): Arrow => {
    const first = all[0] as Arrow;
    const figures = sum(all.map((arrow) => arrow.figures));
    const same = all.every((arrow) => arrow.security === first.security);
    return {
      ...first,
      id,
      from: name(of.get(first.from)),
      to: name(of.get(first.to)),
      figures,
      health: health(figures),
      security: same ? first.security : "mixed",
      services: [],
      badges: unique(all.flatMap((arrow) => arrow.badges)),
    };
  });
  const drawn = [...nodes.values()].map((node) => {
    const figures = sum(arrows.filter((arrow) => arrow.to === node.id).map((arrow) => arrow.figures));
    return { ...node, figures, health: health(figures) };
  });
  return { nodes: drawn.sort((a, b) => (a.id < b.id ? -1 : 1)), arrows: arrows.sort((a, b) => (a.id < b.id ? -1 : 1)) };
}

/** What somebody hears who does not see the picture: first what others see. */
export function spoken(node: Node, seen: string, percent: (share: number) => string): string {
  const well = node.figures.calls > 0 ? `${percent(1 - failed(node.figures))} ok` : "no calls";
  const badges = node.badges.map((badge) => badge.text).join(", ");
  return [seen, well, node.health, `${node.kind} in ${node.namespace || "no namespace"}`, badges].filter(Boolean).join(", ");
}
