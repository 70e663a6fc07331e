/**
 * Where nodes of a graph stand and which way its arrows go: in layers, from who calls to who is called (dagre).
 *
 * Invariant: equal shapes are laid out equally, so that a picture stands still while only its figures change.
 */

import { graphlib, layout as arrange } from "@dagrejs/dagre";

import type { Graph } from "./graph";

export const NODE_WIDTH = 168;
export const NODE_HEIGHT = 46;
/** Room for what stands beside an arrow. */
const LABEL_WIDTH = 84;
const LABEL_HEIGHT = 30;

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly nodes: ReadonlyMap<string, Point>;
  readonly arrows: ReadonlyMap<string, { readonly path: string; readonly points: readonly Point[]; readonly label: Point }>;
}

export function layout(graph: Graph, down: boolean): Layout {
  const drawn = new graphlib.Graph({ multigraph: true });
  drawn.setGraph({ rankdir: down ? "TB" : "LR", nodesep: 26, ranksep: down ? 44 : 60, edgesep: 18, marginx: 12, marginy: 12 });
  drawn.setDefaultEdgeLabel(() => ({}));
  for (const node of graph.nodes) drawn.setNode(node.id, { width: NODE_WIDTH, height: NODE_HEIGHT });
  for (const arrow of graph.arrows) drawn.setEdge(arrow.from, arrow.to, { width: LABEL_WIDTH, height: LABEL_HEIGHT, labelpos: "c" }, arrow.id);
  arrange(drawn);
  const nodes = new Map<string, Point>();
  for (const node of graph.nodes) {
    const { x, y } = drawn.node(node.id) as Point;
    nodes.set(node.id, { x, y });
  }
  const arrows = new Map<string, { path: string; points: Point[]; label: Point }>();
  for (const arrow of graph.arrows) {
    const edge = drawn.edge({ v: arrow.from, w: arrow.to, name: arrow.id }) as { points: Point[]; x?: number; y?: number };
    const points = edge.points.map(({ x, y }) => ({ x, y }));
    const middle = points[Math.floor(points.length / 2)] ?? { x: 0, y: 0 };
    arrows.set(arrow.id, { path: curve(points), points, label: { x: edge.x ?? middle.x, y: edge.y ?? middle.y } });
  }
  const size = drawn.graph() as { width?: number; height?: number };
  return { width: finite(size.width), height: finite(size.height), nodes, arrows };
}

function finite(value: number | undefined): number {
  return value !== undefined && Number.isFinite(value) && value > 0 ? value : 1;
}

/** A line through points that bends at none of them: quadratic curves between their middles. */
export function curve(points: readonly Point[]): string {
  const [first, ...rest] = points;
  const last = rest.at(-1);
  if (first === undefined || last === undefined) return "";
  const near = (value: number) => Math.round(value * 10) / 10;
  let path = `M${near(first.x)},${near(first.y)}`;
  for (let index = 1; index < points.length - 1; index += 1) {
    const here = points[index] as Point;
    const next = points[index + 1] as Point;
    const end = index === points.length - 2 ? next : { x: (here.x + next.x) / 2, y: (here.y + next.y) / 2 };
    path += `Q${near(here.x)},${near(here.y)} ${near(end.x)},${near(end.y)}`;
  }
  return points.length === 2 ? `${path}L${near(last.x)},${near(last.y)}` : path;
}
