/**
 * The graph as a picture: nodes that can be walked with Tab and opened with Enter, arrows as wide as they are busy, dots that run as fast as calls do.
 *
 * Invariants: it is laid out anew only when its shape changes; the user's own place and closeness stay meanwhile; nothing moves by itself where the
 * system says that nothing should, or where there is too much to move.
 */

import { useComputed, useSignal, type ReadonlySignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";

import { micros, percent, rate } from "../model/format";
import { shape, spoken, type Arrow, type Graph, type Node } from "../model/graph";
import { layout, NODE_HEIGHT, NODE_WIDTH, type Layout } from "../model/layout";
import { failed } from "../model/mesh";
import { middle, plain } from "../model/text";
import { SIGN_PIXELS, SignMark } from "./icons";
import { on } from "./keys";
import { moves } from "./theme";

export type LabelOf = "rate" | "errors" | "p95" | "none";

interface Props {
  readonly graph: Graph;
  readonly label: LabelOf;
  readonly chosen: string;
  readonly found: ((node: Node) => boolean) | undefined;
  readonly still: boolean;
  readonly choose: (id: string) => void;
  readonly focus: (id: string) => void;
}

interface View {
  readonly x: number;
  readonly y: number;
  readonly scale: number;
}

const SCALE_MIN = 0.1;
const SCALE_MAX = 2.5;
/** Nobody reads letters smaller than this makes them. */
const SCALE_READ = 0.45;
const ARROWS_MOVING_MAX = 120;

function shownOn(arrow: Arrow, label: LabelOf): string {
  const { figures } = arrow;
  if (label === "none" || figures.calls <= 0) return "";
  if (label === "errors") return figures.failures > 0 ? `${percent(failed(figures))} fail` : "";
  return label === "p95" ? micros(figures.p95) : rate(figures.calls);
}

export function Picture({ graph, label, chosen, found, still, choose, focus }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const view = useSignal<View>({ x: 0, y: 0, scale: 1 });
  const own = useRef(false);
  const size = useSignal({ width: 800, height: 500 });
  const down = size.value.width < 620;
  const form = shape(graph);
  const placed = useMemo(() => layout(graph, down), [form, down]);
  const fit = () => {
    own.current = false;
    const { width, height } = size.value;
    const scale = Math.max(SCALE_READ, Math.min(1.15, (width - 24) / placed.width, (height - 24) / placed.height));
    view.value = { scale, x: Math.max(12, (width - placed.width * scale) / 2), y: Math.max(12, (height - placed.height * scale) / 2) };
  };
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const resized = new ResizeObserver(() => (size.value = { width: element.clientWidth, height: element.clientHeight }));
    resized.observe(element);
    return () => resized.disconnect();
  }, []);
  useEffect(() => {
    if (!own.current) fit();
  }, [placed, size.value]);
  const zoom = (factor: number, atX = size.value.width / 2, atY = size.value.height / 2) => {
    own.current = true;
    const { x, y, scale } = view.value;
    const next = Math.max(SCALE_MIN, Math.min(SCALE_MAX, scale * factor));
    view.value = { scale: next, x: atX - ((atX - x) / scale) * next, y: atY - ((atY - y) / scale) * next };
  };
  useEffect(() => {
    const ends = [on("+", () => zoom(1.25)), on("-", () => zoom(0.8)), on("0", fit)];
    return () => ends.forEach((end) => end());
  });
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const wheel = (event: WheelEvent) => {
      // A page that is scrolled past it goes on; who wants it closer holds Ctrl, as everywhere.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const rect = element.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 400), event.clientX - rect.left, event.clientY - rect.top);
    };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
  // A click that ends a move is none.
  const movedAt = useRef(Number.NEGATIVE_INFINITY);
  const pick = (id: string) => {
    if (performance.now() - movedAt.current > 120) choose(id);
  };
  const held = useRef<{ id: number; x: number; y: number; moved: boolean } | undefined>(undefined);
  const near = useMemo(() => {
    if (chosen === "") return undefined;
    const kept = new Set([chosen]);
    for (const arrow of graph.arrows) {
      if (arrow.id === chosen) kept.add(arrow.from).add(arrow.to);
      if (arrow.from === chosen || arrow.to === chosen) kept.add(arrow.id).add(arrow.from).add(arrow.to);
    }
    return kept;
  }, [chosen, form]);
  const faint = (id: string) => (near !== undefined && !near.has(id) ? " is-faint" : "");
  const { x, y, scale } = view.value;
  return (
    <div
      ref={box}
      class="picture"
      onPointerDown={(event) => {
        if (event.button === 0) held.current = { id: event.pointerId, x: event.clientX - x, y: event.clientY - y, moved: false };
      }}
      onPointerMove={(event) => {
        const hand = held.current;
        if (hand === undefined || hand.id !== event.pointerId || event.buttons === 0) return;
        const to = { x: event.clientX - hand.x, y: event.clientY - hand.y };
        if (!hand.moved && Math.hypot(to.x - x, to.y - y) < 4) return;
        if (!hand.moved) {
          hand.moved = true;
          event.currentTarget.setPointerCapture(event.pointerId);
        }
        own.current = true;
        view.value = { ...view.value, ...to };
      }}
      onPointerUp={(event) => {
        const moved = held.current?.moved === true;
        held.current = undefined;
        if (moved) movedAt.current = event.timeStamp;
      }}
      onClick={(event) => {
        if (event.target === event.currentTarget || (event.target instanceof Element && event.target.tagName === "svg")) pick("");
      }}
    >
      {!still && graph.arrows.length <= ARROWS_MOVING_MAX && moves() ? <Dots graph={graph} placed={placed} view={view} size={size} /> : null}
      <svg class="graph" width="100%" height="100%" role="group" aria-label="Who calls whom; the table below says the same">
        <defs>
          {(["ok", "degraded", "failing", "idle"] as const).map((health) => (
            <marker key={health} id={`head-${health}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">
              <path d="M0,0.6L8,4L0,7.4z" class={`head health-${health}`} />
            </marker>
          ))}
        </defs>
        <g transform={`translate(${x.toFixed(1)},${y.toFixed(1)}) scale(${scale.toFixed(3)})`}>
          {graph.arrows.map((arrow) => (
            <ArrowMark key={arrow.id} arrow={arrow} placed={placed} label={label} chosen={arrow.id === chosen} faint={faint(arrow.id)} choose={pick} />
          ))}
          {graph.nodes.map((node) => (
            <NodeMark key={node.id} node={node} placed={placed} chosen={node.id === chosen} found={found?.(node) === true} faint={faint(node.id)} choose={pick} focus={focus} />
          ))}
        </g>
      </svg>
      <div class="picture-tools">
        <button type="button" class="quiet" aria-label="Closer" title="+" onClick={() => zoom(1.25)}>
          +
        </button>
        <button type="button" class="quiet" aria-label="Farther" title="-" onClick={() => zoom(0.8)}>
          &minus;
        </button>
        <button type="button" class="quiet" aria-label="All of it" title="0" onClick={fit}>
          &#x2922;
        </button>
      </div>
    </div>
  );
}

interface ArrowProps {
  readonly arrow: Arrow;
  readonly placed: Layout;
  readonly label: LabelOf;
  readonly chosen: boolean;
  readonly faint: string;
  readonly choose: (id: string) => void;
}

function ArrowMark({ arrow, placed, label, chosen, faint, choose }: ArrowProps): JSX.Element | null {
  const way = placed.arrows.get(arrow.id);
  if (way === undefined) return null;
  const width = arrow.figures.calls > 0 ? 1.4 + Math.min(3.2, Math.log10(1 + arrow.figures.calls) * 1.1) : 1.2;
  const said = shownOn(arrow, label);
  const fails = label !== "errors" && arrow.health !== "ok" && arrow.health !== "idle" ? ` ${percent(failed(arrow.figures))} fail` : "";
  const locked = arrow.security === "mutual_tls" || arrow.security === "mixed";
  const signs = [...(locked ? ["lock"] : []), ...new Set(arrow.badges.map((badge) => badge.kind))];
  return (
    <g class={`arrow health-${arrow.health}${chosen ? " is-chosen" : ""}${faint}`} data-arrow={arrow.id} data-health={arrow.health} onClick={() => choose(chosen ? "" : arrow.id)}>
      <path d={way.path} class="arrow-room" />
      <path d={way.path} class="arrow-line" stroke-width={width} marker-end={`url(#head-${arrow.health})`} />
      <g transform={`translate(${way.label.x.toFixed(1)},${way.label.y.toFixed(1)})`}>
        {said === "" && fails === "" ? null : (
          <text class="arrow-label" y={signs.length > 0 ? -3 : 4} text-anchor="middle">
            {said}
            <tspan class="arrow-fails">{fails}</tspan>
          </text>
        )}
        {signs.map((name, index) => (
          <SignMark key={name} name={name} x={(index - signs.length / 2) * (SIGN_PIXELS + 4) + 2} y={4} />
        ))}
      </g>
    </g>
  );
}

interface NodeProps {
  readonly node: Node;
  readonly placed: Layout;
  readonly chosen: boolean;
  readonly found: boolean;
  readonly faint: string;
  readonly choose: (id: string) => void;
  readonly focus: (id: string) => void;
}

function NodeMark({ node, placed, chosen, found, faint, choose, focus }: NodeProps): JSX.Element | null {
  const place = placed.nodes.get(node.id);
  if (place === undefined) return null;
  const [left, top] = [place.x - NODE_WIDTH / 2, place.y - NODE_HEIGHT / 2];
  const detail = node.kind === "workload" ? node.detail || node.namespace : node.detail || node.kind;
  const figures = node.figures.calls > 0 ? rate(node.figures.calls) : "";
  const label = middle(node.label || "(nobody)", 17);
  const below = middle(detail, 14);
  return (
    <g
      class={`node node-${node.kind} health-${node.health}${chosen ? " is-chosen" : ""}${found ? " is-found" : ""}${faint}`}
      data-node={node.id}
      data-health={node.health}
      transform={`translate(${left.toFixed(1)},${top.toFixed(1)})`}
      tabindex={0}
      role="button"
      aria-pressed={chosen}
      aria-label={plain(spoken(node, `${label} ${below} ${figures}`.trim(), percent))}
      onClick={() => choose(chosen ? "" : node.id)}
      onDblClick={() => focus(node.id)}
      onKeyDown={(event) => {
        if (event.key === "Enter" || event.key === " ") choose(chosen ? "" : node.id);
        else if (event.key === "f") focus(node.id);
        else return;
        event.preventDefault();
        event.stopPropagation();
      }}
    >
      <rect width={NODE_WIDTH} height={NODE_HEIGHT} rx={node.kind === "service" ? NODE_HEIGHT / 2 : 7} class="node-body" />
      <circle cx="16" cy={NODE_HEIGHT / 2} r="4.5" class="node-dot" />
      <text x="28" y="20" class="node-label">
        {plain(label)}
      </text>{" "}
      <text x="28" y="35" class="node-detail">
        {plain(below)}
      </text>{" "}
      <text x={NODE_WIDTH - 10} y="35" text-anchor="end" class="node-figures">
        {figures}
      </text>
      {[...new Set(node.badges.map((badge) => badge.kind))].map((kind, index) => (
        <SignMark key={kind} name={kind} x={NODE_WIDTH - 22 - index * (SIGN_PIXELS + 3)} y={9} />
      ))}
    </g>
  );
}

/** Sampled places along an arrow, from which a dot's place is read without asking the browser. */
function samples(path: string): Float32Array {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  const length = line.getTotalLength();
  const steps = 48;
  const places = new Float32Array((steps + 1) * 2);
  for (let step = 0; step <= steps; step += 1) {
    const point = line.getPointAtLength((length * step) / steps);
    places[step * 2] = point.x;
    places[step * 2 + 1] = point.y;
  }
  return places;
}

const DOTS_MAX = 6;
const FRAME_MILLIS = 1000 / 30;

function Dots({ graph, placed, view, size }: { graph: Graph; placed: Layout; view: ReadonlySignal<View>; size: ReadonlySignal<{ width: number; height: number }> }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const latest = useRef(graph);
  latest.current = graph;
  const lines = useMemo(() => new Map([...placed.arrows].map(([id, way]) => [id, samples(way.path)])), [placed]);
  const room = useComputed(() => size.value);
  useEffect(() => {
    const element = canvas.current;
    const pen = element?.getContext("2d");
    if (element === null || pen === null || pen === undefined) return undefined;
    const probe = (health: string) => getComputedStyle(document.querySelector(`.probe-dot-${health}`) ?? element).color;
    const paint = { ok: probe("ok"), degraded: probe("degraded"), failing: probe("failing"), idle: probe("idle") };
    let frame = 0;
    let drawn = 0;
    const draw = (time: number) => {
      frame = requestAnimationFrame(draw);
      if (time - drawn < FRAME_MILLIS || document.hidden) return;
      drawn = time;
      const ratio = window.devicePixelRatio || 1;
      const { width, height } = room.value;
      if (element.width !== Math.round(width * ratio) || element.height !== Math.round(height * ratio)) {
        element.width = Math.round(width * ratio);
        element.height = Math.round(height * ratio);
      }
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, element.width, element.height);
      const { x, y, scale } = view.value;
      pen.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
      for (const arrow of latest.current.arrows) {
        const line = lines.get(arrow.id);
        if (line === undefined || arrow.figures.calls <= 0) continue;
        // As many as there are calls, on a scale that a hundred times more is three more; as fast as they are quick.
        const dots = Math.max(1, Math.min(DOTS_MAX, Math.round(1 + Math.log10(1 + arrow.figures.calls) * 1.6)));
        const lap = 1200 + Math.min(5000, Math.sqrt(arrow.figures.p95) * 12);
        const bad = Math.round(dots * failed(arrow.figures) + (arrow.figures.failures > 0 ? 0.49 : 0));
        for (let dot = 0; dot < dots; dot += 1) {
          const share = (time / lap + dot / dots) % 1;
          const at = share * (line.length / 2 - 1);
          const index = Math.floor(at) * 2;
          const part = at % 1;
          const dx = (line[index] ?? 0) * (1 - part) + (line[index + 2] ?? line[index] ?? 0) * part;
          const dy = (line[index + 1] ?? 0) * (1 - part) + (line[index + 3] ?? line[index + 1] ?? 0) * part;
          const failing = dot < bad;
          pen.fillStyle = failing ? paint.failing : paint[arrow.health === "failing" ? "ok" : arrow.health];
          pen.beginPath();
          // Failures are squares, so that they are told apart without colour.
          if (failing) pen.rect(dx - 3, dy - 3, 6, 6);
          else pen.arc(dx, dy, 2.6, 0, 2 * Math.PI);
          pen.fill();
        }
      }
    };
    frame = requestAnimationFrame(draw);
    return () => cancelAnimationFrame(frame);
  }, [lines]);
  return (
    <>
      <canvas ref={canvas} class="dots" aria-hidden="true" />
      <span class="probes" aria-hidden="true">
        {(["ok", "degraded", "failing", "idle"] as const).map((health) => (
          <span key={health} class={`probe-dot-${health} health-${health}`} />
        ))}
      </span>
    </>
  );
}
