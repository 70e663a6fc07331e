/**
 * The living graph: who calls whom, how that goes, and what policies do to it; as it is now, or as it was within the last quarter of an hour.
 *
 * Everything chosen here is in the address. The table below the picture says the same as it.
 */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";

import { action } from "../kube/access";
import { FAULTS, nameOf, SERVICES } from "../kube/resource";
import { expression } from "../model/expression";
import { bytes, clock, micros, percent, rate } from "../model/format";
import { around, byNamespace, graphOf, NODES_MAX, only, type Arrow, type Graph, type Mode, type Node } from "../model/graph";
import { failed, NOTHING_SEEN, snapshotOf, type Snapshot } from "../model/mesh";
import { Act } from "../ui/act";
import { Badges, EdgeTable, way } from "../ui/figures";
import { useAnswer, useFigures, useTitle } from "../ui/hooks";
import { Sign } from "../ui/icons";
import { on } from "../ui/keys";
import { history, link, refusal, snapshot } from "../ui/live";
import { Picture, type LabelOf } from "../ui/picture";
import { asked, namespace, say } from "../ui/route";
import { Empty, Facts, HealthWord, Link, Loading, Said, Section } from "../ui/words";
import { injectDialog } from "./inject";

const FIELDS = ["name", "ns", "kind", "version", "calls", "errors", "p95", "health", "badge"];
const MODES: readonly (readonly [Mode, string])[] = [
  ["workloads", "Workloads"],
  ["versions", "Versions"],
  ["services", "Services"],
];
const LABELS: readonly (readonly [LabelOf, string])[] = [
  ["rate", "calls/s"],
  ["errors", "errors"],
  ["p95", "p95"],
  ["none", "nothing"],
];
const STEP_SECONDS = 5;
const HOPS = 2;

function facts(node: Node): Record<string, string | number> {
  return {
    name: node.label,
    ns: node.namespace,
    kind: node.kind,
    version: node.detail,
    calls: node.figures.calls,
    errors: failed(node.figures) * 100,
    p95: node.figures.p95 / 1000,
    health: node.health,
    badge: node.badges.map((badge) => badge.kind).join(" "),
  };
}

export function Traffic(): JSX.Element {
  useTitle("Traffic");
  useFigures();
  const mode = (MODES.find(([mode]) => mode === asked("mode")) ?? MODES[0])?.[0] ?? "workloads";
  const label = (LABELS.find(([label]) => label === asked("label")) ?? LABELS[0])?.[0] ?? "rate";
  const [find, hide, centre, chosen] = [asked("find"), asked("hide"), asked("focus"), asked("pick")];
  const replay = asked("replay") !== "";
  const paused = useSignal<Snapshot | undefined>(undefined);
  const step = useSignal(Number.POSITIVE_INFINITY);
  const frames = useAnswer((signal) => (replay ? history(namespace.value, "15m", `${STEP_SECONDS}s`, signal) : Promise.resolve([])), [replay, namespace.value]);
  const before = useMemo(() => (frames.value ?? []).map(snapshotOf), [frames.value]);
  const at = Math.min(step.value, before.length - 1);
  const shown: Snapshot = replay ? (before[Math.max(0, at)] ?? NOTHING_SEEN) : (paused.value ?? snapshot.value);
  const finds = expression(find, FIELDS);
  const hides = expression(hide, FIELDS);
  let graph: Graph = graphOf(shown, mode);
  if (hide.trim() !== "" && hides.error === "") graph = only(graph, (node) => !hides.test(facts(node)));
  if (centre !== "" && graph.nodes.some((node) => node.id === centre)) graph = around(graph, centre, HOPS);
  const whole = graph.nodes.length;
  const folded = whole > NODES_MAX && centre === "";
  if (folded) graph = byNamespace(graph);
  const pause = () => (paused.value = paused.value === undefined ? snapshot.value : undefined);
  useEffect(() => {
    const ends = [on(" ", pause), on("Escape", () => say({ pick: undefined, focus: undefined }))];
    return () => ends.forEach((end) => end());
  }, []);
  const node = graph.nodes.find((node) => node.id === chosen);
  const arrow = graph.arrows.find((arrow) => arrow.id === chosen);
  return (
    <>
      <h1 class="sr">Traffic</h1>
      <div class="tools" role="toolbar" aria-label="What is shown">
        <div class="choice" role="group" aria-label="Nodes are">
          {MODES.map(([id, title]) => (
            <button key={id} type="button" aria-pressed={mode === id} onClick={() => say({ mode: id === "workloads" ? undefined : id, pick: undefined, focus: undefined })}>
              {title}
            </button>
          ))}
        </div>
        <label>
          <span>Labels</span>
          <select value={label} onChange={(event) => say({ label: event.currentTarget.value })}>
            {LABELS.map(([id, title]) => (
              <option key={id} value={id}>
                {title}
              </option>
            ))}
          </select>
        </label>
        <Expression name="Find" said={find} error={find === "" ? "" : finds.error} change={(find) => say({ find })} find />
        <Expression name="Hide" said={hide} error={hide === "" ? "" : hides.error} change={(hide) => say({ hide })} />
        <button type="button" class="button" aria-pressed={paused.value !== undefined} disabled={replay} onClick={pause} title="Space">
          {paused.value === undefined ? "Pause" : "Go on"}
        </button>
        <button type="button" class="button" aria-pressed={replay} onClick={() => say({ replay: replay ? undefined : "1" })}>
          {replay ? "Back to now" : "Replay"}
        </button>
        {centre === "" ? null : (
          <button type="button" class="button" onClick={() => say({ focus: undefined })}>
            All again
          </button>
        )}
      </div>
      {replay ? <Replay frames={before} at={at} busy={frames.busy} error={frames.error?.message} to={(value) => (step.value = value)} /> : null}
      {folded ? <p class="note">{whole} nodes are more than a picture says: each namespace is one. Choose one above, or double-click it.</p> : null}
      <div class={node !== undefined || arrow !== undefined ? "stage has-panel" : "stage"}>
        {graph.nodes.length === 0 ? (
          <Nothing shown={shown} />
        ) : (
          <Picture
            graph={graph}
            label={label}
            chosen={chosen}
            found={find.trim() === "" || finds.error !== "" ? undefined : (node) => finds.test(facts(node))}
            still={paused.value !== undefined || replay}
            choose={(pick) => say({ pick })}
            focus={(focus) => (focus.startsWith("ns:") ? say({ ns: focus.slice(3), pick: undefined }) : say({ focus, pick: undefined }))}
          />
        )}
        {node === undefined ? null : <NodePanel node={node} graph={graph} />}
        {arrow === undefined ? null : <ArrowPanel arrow={arrow} graph={graph} />}
      </div>
      <Legend />
      <Section title="The same as a table">
        {shown.seen.length === 0 ? <Empty title="No calls" /> : <EdgeTable label="Calls between workloads" seen={shown.seen} />}
      </Section>
    </>
  );
}

function Expression({ name, said, error, change, find = false }: { name: string; said: string; error: string; change: (said: string) => void; find?: boolean }): JSX.Element {
  return (
    <label class="expression">
      <span>{name}</span>
      <input
        value={said}
        data-find={find ? "" : undefined}
        placeholder={find ? "errors > 1 and ns = vote" : "calls < 1"}
        spellcheck={false}
        autocomplete="off"
        aria-invalid={error !== ""}
        title={error || `words, or ${FIELDS.join(", ")} with = != ~ < >, and, or, !`}
        onInput={(event) => change(event.currentTarget.value)}
      />
      {error === "" ? null : <span class="error-line">{error}</span>}
    </label>
  );
}

function Nothing({ shown }: { shown: Snapshot }): JSX.Element {
  if (link.value === "refused") return <Empty title="You may not see calls">{refusal.value}</Empty>;
  if (shown.at === 0 && link.value !== "live") return <Loading what="the graph" />;
  return (
    <Empty title="Nobody calls anybody">
      Calls between workloads are drawn within a second of being made.
    </Empty>
  );
}

function Replay({ frames, at, busy, error, to }: { frames: readonly Snapshot[]; at: number; busy: boolean; error: string | undefined; to: (step: number) => void }): JSX.Element {
  if (error !== undefined) return <p class="note is-bad">{error}</p>;
  if (frames.length === 0) return busy ? <Loading what="the last 15 minutes" /> : <p class="note">Nothing is known of the last 15 minutes.</p>;
  const most = frames.reduce((most, frame) => Math.max(most, frame.total.calls), 0) || 1;
  const here = frames[Math.max(0, at)];
  return (
    <div class="replay">
      <svg class="replay-curve" viewBox={`0 0 ${frames.length} 20`} preserveAspectRatio="none" aria-hidden="true">
        {frames.map((frame, index) => (
          <rect key={frame.at} x={index} width="0.9" y={20 - (frame.total.calls / most) * 20} height={(frame.total.calls / most) * 20} class={failed(frame.total) >= 0.01 ? "bar-bad" : "bar-ok"} />
        ))}
      </svg>
      <input type="range" min={0} max={frames.length - 1} value={at} aria-label="Time" aria-valuetext={here === undefined ? "" : clock(here.at)} onInput={(event) => to(Number(event.currentTarget.value))} />
      <output>{here === undefined ? "" : `${clock(here.at)}, ${rate(here.total.calls)}, ${percent(failed(here.total))} failed`}</output>
    </div>
  );
}

function NodePanel({ node, graph }: { node: Node; graph: Graph }): JSX.Element {
  const into = graph.arrows.filter((arrow) => arrow.to === node.id);
  const out = graph.arrows.filter((arrow) => arrow.from === node.id);
  const names = new Map(graph.nodes.map((node) => [node.id, node]));
  const services = [...new Set(into.flatMap((arrow) => arrow.services))];
  const line = (arrow: Arrow, other: string) => (
    <li key={arrow.id}>
      <button type="button" class="link" onClick={() => say({ pick: arrow.id })}>
        <Said text={names.get(other)?.label ?? other} />
      </button>
      <span class="muted">
        {rate(arrow.figures.calls)} &middot; {percent(1 - failed(arrow.figures))}
      </span>
    </li>
  );
  return (
    <aside class="panel" aria-label={`About ${node.label}`}>
      <PanelHead title={node.label} kind={node.kind === "workload" ? node.namespace : `${node.kind} in ${node.namespace}`} />
      <Facts
        of={[
          ["State", <HealthWord health={node.health} />],
          ["Calls", rate(node.figures.calls)],
          ["Failed", percent(failed(node.figures))],
          ["p50 / p95 / p99", `${micros(node.figures.p50)} / ${micros(node.figures.p95)} / ${micros(node.figures.p99)}`],
        ]}
      />
      <Badges of={node.badges} />
      <h3>Called by</h3>
      {into.length === 0 ? <p class="muted">nobody</p> : <ul class="plain">{into.map((arrow) => line(arrow, arrow.from))}</ul>}
      <h3>Calls</h3>
      {out.length === 0 ? <p class="muted">nobody</p> : <ul class="plain">{out.map((arrow) => line(arrow, arrow.to))}</ul>}
      <div class="buttons">
        <button type="button" class="button" onClick={() => say({ focus: node.id, pick: undefined })}>
          Focus
        </button>
        {node.kind === "workload" ? (
          <>
            <Link page="workload" query={{ in: node.namespace, name: node.name }} class="button">
              Workload
            </Link>
            <Link page="logs" query={{ in: node.namespace, workload: node.name }} class="button">
              Logs
            </Link>
          </>
        ) : (
          <Link page="object" query={{ kind: nameOf(SERVICES), in: node.namespace, name: node.name }} class="button">
            Service
          </Link>
        )}
        <Link page="tap" query={{ in: node.namespace, ...(node.kind === "workload" ? { workload: node.name } : { service: node.name }) }} class="button">
          Tap
        </Link>
        <FaultButtons services={node.kind === "service" ? [`${node.namespace}/${node.name}`] : services} />
      </div>
    </aside>
  );
}

function ArrowPanel({ arrow, graph }: { arrow: Arrow; graph: Graph }): JSX.Element {
  const names = new Map(graph.nodes.map((node) => [node.id, node]));
  const [from, to] = [names.get(arrow.from), names.get(arrow.to)];
  const { figures } = arrow;
  return (
    <aside class="panel" aria-label={`Calls of ${from?.label ?? ""} to ${to?.label ?? ""}`}>
      <PanelHead title={`${from?.label ?? ""} \u2192 ${to?.label ?? ""}`} kind={`${arrow.protocol}, ${way(arrow.security)}`} />
      <Facts
        of={[
          ["State", <HealthWord health={arrow.health} />],
          ["Calls", rate(figures.calls)],
          ["Failed", figures.calls > 0 ? `${percent(failed(figures))} (${rate(figures.failures)})` : "\u2013"],
          ["p50", micros(figures.p50)],
          ["p95", micros(figures.p95)],
          ["p99", micros(figures.p99)],
          ["Bytes", `${bytes(figures.bytes)}/s`],
          ["Services", arrow.services.length === 0 ? "by address" : <Said text={arrow.services.join(", ")} />],
        ]}
      />
      <Badges of={arrow.badges} />
      <div class="buttons">
        <Link page="tap" query={{ in: from?.namespace, workload: from?.name, service: arrow.services[0]?.split("/")[1] }} class="button">
          Tap these calls
        </Link>
        <Link page="traces" query={{}} class="button">
          Traces
        </Link>
        <FaultButtons services={arrow.services} />
      </div>
    </aside>
  );
}

function PanelHead({ title, kind }: { title: string; kind: string }): JSX.Element {
  return (
    <header class="panel-head">
      <div>
        <h2>
          <Said text={title} />
        </h2>
        <p class="muted">
          <Said text={kind} />
        </p>
      </div>
      <button type="button" class="quiet" aria-label="Close" onClick={() => say({ pick: undefined })}>
        &#x2715;
      </button>
    </header>
  );
}

function FaultButtons({ services }: { services: readonly string[] }): JSX.Element {
  return (
    <>
      {services.slice(0, 3).map((service) => {
        const [ns = "", name = ""] = service.split("/");
        return (
          <Act key={service} on={action("create", FAULTS, ns)} act={() => injectDialog(ns, name)}>
            Fault in {name}&hellip;
          </Act>
        );
      })}
    </>
  );
}

function Legend(): JSX.Element {
  return (
    <ul class="legend" aria-label="What signs mean">
      <li>
        <HealthWord health="ok" />
      </li>
      <li>
        <HealthWord health="degraded" /> from 1 %
      </li>
      <li>
        <HealthWord health="failing" /> from 10 % failed
      </li>
      {(
        [
          ["lock", "mutual TLS"],
          ["breaker", "breaker open"],
          ["fault", "fault injected"],
          ["weight", "shares"],
          ["retry", "retries"],
          ["timeout", "timeout"],
        ] as const
      ).map(([name, word]) => (
        <li key={name}>
          <Sign name={name} /> {word}
        </li>
      ))}
    </ul>
  );
}
