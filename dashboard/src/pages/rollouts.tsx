/**
 * Revisions on their way: steps, shares of calls, what each round came to, and a word on them; and shares that somebody gave by hand.
 */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { action, refusedBecause } from "../kube/access";
import { at, count, flag, list, number, text, type Item } from "../kube/read";
import { HTTP_ROUTES, nameOf, ROLLOUTS } from "../kube/resource";
import { rollout, weigh } from "../kube/write";
import { percent, rate, span } from "../model/format";
import { failed } from "../model/mesh";
import { workloadWord } from "../model/workload";
import { Act } from "../ui/act";
import { confirm } from "../ui/dialog";
import { figuresOf } from "../ui/figures";
import { useFigures, useObjects, useTitle } from "../ui/hooks";
import { snapshot } from "../ui/live";
import { asked, namespace } from "../ui/route";
import { doing } from "../ui/toast";
import { Ago, Empty, Facts, instead, Link, Said, Section, Standing } from "../ui/words";

export function Rollouts(): JSX.Element {
  useTitle("Rollouts");
  useFigures();
  const only = asked("name");
  const ns = asked("in") || namespace.value;
  const rollouts = useObjects({ resource: ROLLOUTS, namespace: ns });
  const routes = useObjects({ resource: HTTP_ROUTES, namespace: ns, every: 3000 });
  const shown = rollouts.rows.map((row) => row.object).filter((one) => only === "" || one.metadata.name === only);
  const splits = routes.rows.map((row) => row.object).filter(isSplit);
  return (
    <>
      <h1>Rollouts</h1>
      {instead(rollouts, "rollouts", "A Rollout brings out a change of its template by steps, and takes it back when its calls fail.") ??
        (shown.length === 0 ? <Empty title="No such rollout" /> : shown.map((one) => <One key={one.metadata.uid} object={one} />))}
      {only !== "" ? null : (
        <Section title="Shares by hand" aside="routes that lead callers of a Service to several">
          {splits.length === 0 ? (
            <Empty title="Nobody's callers are split">
              <code>weft split web web-1=90 web-2=10</code> does that.
            </Empty>
          ) : (
            splits.map((route) => <Split key={route.metadata.uid} route={route} />)
          )}
        </Section>
      )}
    </>
  );
}

interface Step {
  readonly word: string;
  readonly detail: string;
}

function stepsOf(object: Item): Step[] {
  return list(object, "spec", "strategy", "canary", "steps").map((step) => {
    const weight = number(step, "setWeight");
    if (weight !== undefined) return { word: `${weight} %`, detail: "of calls" };
    if (at(step, "pause") !== undefined) {
      const seconds = number(step, "pause", "durationSeconds");
      return { word: "pause", detail: seconds === undefined ? "until promoted" : span(seconds) };
    }
    return { word: "analysis", detail: `${number(step, "analysis", "rounds") ?? 1} rounds` };
  });
}

function strategy(object: Item): string {
  return ["canary", "blueGreen", "ab"].find((name) => at(object, "spec", "strategy", name) !== undefined) ?? "";
}

function One({ object }: { object: Item }): JSX.Element {
  const { namespace: where = "", name } = object.metadata;
  const said = workloadWord(object, "Rollout");
  const status = at(object, "status");
  const phase = text(status, "phase");
  const over = phase === "Healthy" || phase === "RolledBack" || phase === "";
  const [stable, current] = [text(status, "stableRevision"), text(status, "currentRevision")];
  const step = count(status, "step");
  const steps = stepsOf(object);
  const weight = count(status, "weight");
  const patch = action("patch", ROLLOUTS, where, name);
  const say = (what: string, spec: unknown) => void doing(what, () => rollout(object, spec));
  const idle = over ? "no revision is on its way" : undefined;
  const paused = flag(object, "spec", "paused");
  return (
    <section class="section rollout" aria-label={`Rollout ${name}`} data-rollout={name}>
      <header class="section-head">
        <h2>
          <Link page="workload" query={{ kind: nameOf(ROLLOUTS), in: where, name }}>
            <Said text={name} />
          </Link>{" "}
          <span class="muted">
            in <Said text={where} />, {strategy(object)}
          </span>
        </h2>
        <div class="buttons">
          <Act primary on={patch} unless={idle} act={() => say(`${current} goes on past step ${step}`, { promote: { revision: current, step }, paused: false })}>
            Promote
          </Act>
          <Act on={patch} unless={idle} act={() => confirm(`Bring out ${current} at once?`, "The steps that are left are left out.", "All the way", () => say(`${current} is brought out`, { promote: { revision: current, step: null }, paused: false }))}>
            All the way
          </Act>
          <Act on={patch} unless={idle === undefined || paused ? undefined : idle} act={() => say(paused ? `${name} goes on` : `${name} is paused`, { paused: !paused })}>
            {paused ? "Resume" : "Pause"}
          </Act>
          <Act danger on={patch} unless={idle} act={() => say(`${current} is taken back`, { abort: { revision: current } })}>
            Abort
          </Act>
          <Act on={patch} unless={phase === "RolledBack" ? undefined : "nothing was rolled back"} act={() => say(`${current} is tried again`, { retry: new Date().toISOString().slice(0, 63), abort: null })}>
            Retry
          </Act>
        </div>
      </header>
      <p class="head-line">
        <Standing is={said.standing} word={phase || "Pending"} />
        <Said text={text(status, "message")} />
      </p>
      {text(status, "rolledBackBecause") === "" ? null : (
        <p class="note is-bad">
          <Said text={`${text(status, "rolledBackRevision")}: ${text(status, "rolledBackBecause")}`} />
        </p>
      )}
      {over ? null : (
        <div class="shares" role="img" aria-label={`${weight} of a hundred calls go to ${current}`}>
          <span class="share-new" style={{ width: `${weight}%` }} />
        </div>
      )}
      <Facts
        of={[
          ["Served", <Said text={stable || "\u2013"} class="mono" />],
          ["On its way", over ? "nothing" : <Said text={current} class="mono" />],
          ["Share", over ? "" : `${weight} %`],
          ["Pods", `${count(status, "readyReplicas")} of ${number(object, "spec", "replicas") ?? 1} ready, ${count(status, "updatedReplicas")} of the current revision`],
          ["Step began", over ? "" : <Ago time={text(status, "stepStarted")} />],
        ]}
      />
      {steps.length === 0 ? null : (
        <ol class="steps" aria-label="Steps">
          {steps.map((one, index) => {
            const done = over ? phase === "Healthy" : index < step;
            const here = !over && index === step;
            return (
              <li key={index} class={done ? "is-done" : here ? "is-here" : ""} aria-current={here ? "step" : undefined}>
                <b>{one.word}</b>
                <span>{one.detail}</span>
                {done ? <span class="sr">done</span> : null}
              </li>
            );
          })}
        </ol>
      )}
      <Rounds object={object} />
    </section>
  );
}

function Rounds({ object }: { object: Item }): JSX.Element | null {
  const rounds = list(object, "status", "analysis", "rounds");
  if (rounds.length === 0) return null;
  const standing = (verdict: string) => (verdict === "Passed" ? "ok" : verdict === "Failed" ? "bad" : "off");
  return (
    <table class="small wide" aria-label="Rounds of the analysis">
      <thead>
        <tr>
          <th scope="col">Verdict</th>
          <th scope="col">Calls</th>
          <th scope="col">Failed</th>
          <th scope="col">Why</th>
          <th scope="col">Ended</th>
        </tr>
      </thead>
      <tbody>
        {[...rounds].reverse().map((round) => (
          <tr key={text(round, "ended")}>
            <td>
              <Standing is={standing(text(round, "verdict"))} word={text(round, "verdict")} />
            </td>
            <td>{count(round, "requests")}</td>
            <td>{count(round, "failures")}</td>
            <td>
              <Said text={text(round, "message")} />
            </td>
            <td>
              <Ago time={text(round, "ended")} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A route whose parent is a Service and which leads to several: what `weft split` makes. Those of a Rollout are its own. */
function isSplit(route: Item): boolean {
  const owned = (route.metadata.ownerReferences ?? []).some((owner) => owner.kind === "Rollout");
  return !owned && list(route, "spec", "rules").some((rule) => list(rule, "backendRefs").length > 1);
}

function Split({ route }: { route: Item }): JSX.Element {
  const { namespace: where = "", name } = route.metadata;
  const parents = list(route, "spec", "parentRefs").map((parent) => `${text(parent, "kind") || "Gateway"} ${text(parent, "name")}`);
  return (
    <div class="split" data-split={name}>
      <p class="head-line">
        <Link page="object" query={{ kind: nameOf(HTTP_ROUTES), in: where, name }}>
          <Said text={name} />
        </Link>
        <span class="muted">
          <Said text={`${where}: callers of ${parents.join(", ")}`} />
        </span>
      </p>
      {list(route, "spec", "rules").map((rule, index) => (list(rule, "backendRefs").length > 1 ? <Weights key={index} route={route} rule={index} /> : null))}
    </div>
  );
}

function Weights({ route, rule }: { route: Item; rule: number }): JSX.Element {
  const where = route.metadata.namespace ?? "";
  const backends = list(route, "spec", "rules", rule, "backendRefs");
  const there = backends.map((backend) => number(backend, "weight") ?? 1);
  const wish = useSignal<readonly number[] | undefined>(undefined);
  const version = route.metadata.resourceVersion;
  useEffect(() => {
    wish.value = undefined;
  }, [version]);
  const weights = wish.value ?? there;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const refused = refusedBecause(action("patch", HTTP_ROUTES, where, route.metadata.name));
  const share = (index: number) => (total === 0 ? 0 : (weights[index] ?? 0) / total);
  // Two are one slider's ends; of more, each has its own.
  const set = (index: number, percent: number) => {
    const next = weights.map((_, at) => Math.round(share(at) * 100));
    if (next.length === 2) {
      next[index] = percent;
      next[1 - index] = 100 - percent;
    } else next[index] = percent;
    wish.value = next;
  };
  return (
    <div class="weights">
      {backends.map((backend, index) => {
        const name = text(backend, "name");
        const figures = figuresOf(snapshot.value, "destination", text(backend, "namespace") || where, name);
        const calls = callsTo(text(backend, "namespace") || where, name);
        return (
          <label key={name} class="weight">
            <span>
              <Said text={name} />
              <small class="muted">
                {calls > 0 ? `${rate(calls)} now` : figures.calls > 0 ? `${rate(figures.calls)} now, ${percent(failed(figures))} failed` : "no calls now"}
              </small>
            </span>
            <input
              type="range"
              min={0}
              max={100}
              value={Math.round(share(index) * 100)}
              disabled={refused !== ""}
              title={refused || undefined}
              aria-label={`Share of ${name}`}
              aria-valuetext={`${Math.round(share(index) * 100)} percent`}
              onInput={(event) => set(index, Number(event.currentTarget.value))}
            />
            <output>{Math.round(share(index) * 100)} %</output>
          </label>
        );
      })}
      <div class="buttons">
        <Act
          primary
          on={action("patch", HTTP_ROUTES, where, route.metadata.name)}
          unless={wish.value === undefined ? "nothing was moved" : total === 0 ? "nobody would be called" : undefined}
          act={() => void doing(`Callers reach ${backends.map((backend, index) => `${text(backend, "name")} ${Math.round(share(index) * 100)} %`).join(", ")}`, () => weigh(route, rule, weights))}
        >
          Apply
        </Act>
        {wish.value === undefined ? null : (
          <button type="button" class="button" onClick={() => (wish.value = undefined)}>
            Leave it
          </button>
        )}
      </div>
    </div>
  );
}

/** Calls of a Service, by whichever workload takes them. */
function callsTo(namespace: string, service: string): number {
  return snapshot.value.seen.filter(({ edge }) => edge.service.namespace === namespace && edge.service.name === service).reduce((sum, { figures }) => sum + figures.calls, 0);
}
