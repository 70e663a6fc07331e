/**
 * One workload: its calls by route and by who calls, its pods, what it was before, what is applied to it, what it may, what happened.
 *
 * One watch, of its pods. The object itself and what is about it are asked for again now and then.
 */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";

import { action } from "../kube/access";
import { json, lines, url } from "../kube/http";
import { at, conditions, count, entries, keyOf, list, number, selects, text, texts, type Item } from "../kube/read";
import {
  AUTOSCALERS, CONTROLLER_REVISIONS, GRANTS, HTTP_ROUTES, MESH_POLICIES, FAULTS, nameOf, objectPath, pathOf, PODS, REPLICA_SETS, SERVICES, WORKLOADS, type Resource,
} from "../kube/resource";
import { bringBack, remove, restart, scale } from "../kube/write";
import { micros, percent, quantity, rate } from "../model/format";
import { badgesOf } from "../model/graph";
import { failed, sum } from "../model/mesh";
import { images, revisionsOf, type Revision } from "../model/revision";
import { selectorOf, selectorText, servicesOf, workloadWord } from "../model/workload";
import { Act } from "../ui/act";
import { Chart } from "../ui/chart";
import { confirm, show } from "../ui/dialog";
import { Difference } from "../ui/difference";
import { Events } from "../ui/events";
import { Badges, EdgeTable, figuresOf } from "../ui/figures";
import { useAnswer, useFigures, useObjects, useTitle } from "../ui/hooks";
import { history, link, meshPath, snapshot } from "../ui/live";
import { PodTable } from "../ui/pods";
import { Usage } from "../ui/usage";
import { asked, go, href } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { doing, soon } from "../ui/toast";
import { Ago, Empty, Facts, Failure, instead, Link, Loading, Said, Section, Standing, Tabs } from "../ui/words";

const EVERY_MILLIS = 5000;

const TABS = [
  ["", "Now"],
  ["revisions", "Revisions"],
  ["applied", "Applied"],
  ["events", "Events"],
] as const;

/** The kind that is asked for; of a name alone, as the graph has it, the first that there is. */
function useWorkload(): { resource: Resource | undefined; object: Item | undefined; failure: ReturnType<typeof useAnswer>["error"]; again: () => void } {
  const [kind, where, name] = [asked("kind"), asked("in"), asked("name")];
  const found = useAnswer(
    async (signal) => {
      const among = WORKLOADS.filter((resource) => kind === "" || nameOf(resource) === kind);
      let refusal: unknown;
      for (const resource of among) {
        try {
          return { resource, object: (await json(objectPath(resource, where, name), { signal })) as Item };
        } catch (error) {
          refusal = error;
          if (kind !== "" || (error as { code?: number }).code !== 404) throw error;
        }
      }
      throw refusal;
    },
    [kind, where, name],
    EVERY_MILLIS,
  );
  return { resource: found.value?.resource, object: found.value?.object, failure: found.error, again: found.again };
}

export function Workload(): JSX.Element {
  const { resource, object, failure, again } = useWorkload();
  const [where, name, tab] = [asked("in"), asked("name"), asked("tab")];
  useTitle(name);
  if (object === undefined || resource === undefined) return failure === undefined ? <Loading what={name} /> : <Failure error={failure} again={again} />;
  const said = workloadWord(object, resource.kind);
  const address = (tab: string) => href("workload", { kind: nameOf(resource), in: where, name, tab });
  return (
    <>
      <div class="page-head">
        <div>
          <p class="crumb">
            <Link page="workloads">Workloads</Link> / {resource.kind} / <Said text={where} />
          </p>
          <h1>
            <Said text={name} />
          </h1>
          <p class="head-line">
            <Standing is={said.standing} word={said.word} />
            {said.wanted > 0 || said.ready > 0 ? (
              <span>
                {said.ready} of {said.wanted} ready
              </span>
            ) : null}
            <span class="muted">
              <Said text={images(at(object, "spec", "template") ?? at(object, "spec", "jobTemplate", "spec", "template"))} class="mono" />
            </span>
            {said.why === "" || said.standing === "ok" ? null : (
              <span class="why">
                <Said text={said.why} />
              </span>
            )}
          </p>
        </div>
        <Actions resource={resource} object={object} again={again} />
      </div>
      <Tabs label="About the workload" at={tab} of={TABS.map(([id, title]) => ({ id, title, address: address(id) }))} />
      {tab === "revisions" ? (
        <Revisions resource={resource} object={object} again={again} />
      ) : tab === "applied" ? (
        <Applied object={object} />
      ) : tab === "events" ? (
        <Events namespace={where} name={name} uid={object.metadata.uid} />
      ) : (
        <Now object={object} />
      )}
    </>
  );
}

function Actions({ resource, object, again }: { resource: Resource; object: Item; again: () => void }): JSX.Element {
  const { namespace: where = "", name } = object.metadata;
  const scales = ["Deployment", "StatefulSet", "Rollout"].includes(resource.kind);
  const restarts = ["Deployment", "StatefulSet", "DaemonSet", "Rollout"].includes(resource.kind);
  return (
    <div class="buttons">
      {scales ? (
        <Act on={action("patch", resource, where, name, "scale")} act={() => show(`Scale ${name}`, () => <Scale resource={resource} object={object} done={again} />)}>
          Scale&hellip;
        </Act>
      ) : null}
      {restarts ? (
        <Act
          on={action("patch", resource, where, name)}
          act={() => confirm(`Restart ${name}?`, "Its pods are replaced by new ones, as its strategy says.", "Restart", () => void doing(`${name} is restarted`, () => restart(resource, object, new Date().toISOString())).then(again))}
        >
          Restart
        </Act>
      ) : null}
      {resource.kind === "Rollout" ? (
        <Link page="rollouts" query={{ in: where, name }} class="button">
          Steps
        </Link>
      ) : null}
      <Link page="logs" query={{ in: where, workload: name }} class="button">
        Logs
      </Link>
      <Link page="object" query={{ kind: nameOf(resource), in: where, name, tab: "yaml" }} class="button">
        YAML
      </Link>
      <Act
        danger
        on={action("delete", resource, where, name)}
        act={() => {
          soon(`Deleting ${resource.kind} ${name}`, `${resource.kind} ${name} is deleted`, () => remove(pathOf(resource, object)));
          go(href("workloads"));
        }}
      >
        Delete
      </Act>
    </div>
  );
}

function Scale({ resource, object, done }: { resource: Resource; object: Item; done: () => void }): JSX.Element {
  const replicas = useSignal(number(object, "spec", "replicas") ?? 1);
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void doing(`${object.metadata.name} has ${replicas.value} replicas`, () => scale(resource, object, replicas.value)).then((ok) => {
          if (ok) document.querySelector("dialog")?.close();
          done();
        });
      }}
    >
      <label>
        Replicas
        <input type="number" min={0} max={10000} required value={replicas.value} onInput={(event) => (replicas.value = Number(event.currentTarget.value))} />
      </label>
      <div class="buttons">
        <button type="submit" class="button button-primary">
          Scale
        </button>
      </div>
    </form>
  );
}

function Now({ object }: { object: Item }): JSX.Element {
  useFigures();
  const { namespace: where = "", name } = object.metadata;
  const selector = selectorOf(object);
  const pods = useObjects(Object.keys(selector).length > 0 ? { resource: PODS, namespace: where, labels: selectorText(selector) } : undefined);
  const own = pods.rows.map((row) => row.object);
  const inbound = snapshot.value.seen.filter(({ edge }) => edge.destination.namespace === where && edge.destination.workload === name);
  const outbound = snapshot.value.seen.filter(({ edge }) => edge.source.namespace === where && edge.source.workload === name);
  const figures = figuresOf(snapshot.value, "destination", where, name);
  return (
    <>
      {link.value === "refused" ? null : (
        <>
          <div class="tiles">
            <Figure name="Calls" value={figures.calls > 0 ? rate(figures.calls) : "none now"} />
            <Figure name="Success" value={figures.calls > 0 ? percent(1 - failed(figures)) : "\u2013"} bad={failed(figures) >= 0.01} />
            <Figure name="p50 / p95 / p99" value={figures.calls > 0 ? `${micros(figures.p50)} / ${micros(figures.p95)} / ${micros(figures.p99)}` : "\u2013"} />
          </div>
          <Past namespace={where} name={name} />
        </>
      )}
      <Section title="Pods" aside={`${pods.rows.length}`}>
        {instead(pods, "pods", "Nothing runs of it.") ?? <PodTable label={`Pods of ${name}`} pods={own} short={pods.rows.length <= 50} />}
      </Section>
      <Usage pods={own} />
      {link.value === "refused" ? null : (
        <>
          <Section title="Who calls it">{inbound.length === 0 ? <Empty title="Nobody, lately" /> : <EdgeTable label={`Calls to ${name}`} seen={inbound} />}</Section>
          <Section title="Whom it calls">{outbound.length === 0 ? <Empty title="Nobody, lately" /> : <EdgeTable label={`Calls of ${name}`} seen={outbound} />}</Section>
          <Routes namespace={where} name={name} />
        </>
      )}
    </>
  );
}

function Figure({ name, value, bad = false }: { name: string; value: string; bad?: boolean }): JSX.Element {
  return (
    <div class="tile">
      <span class="tile-name">{name}</span>
      <span class={bad ? "tile-value is-bad-text" : "tile-value"}>{value}</span>
    </div>
  );
}

const STEP_SECONDS = 10;

/** The last quarter of an hour, as the server kept it. */
function Past({ namespace, name }: { namespace: string; name: string }): JSX.Element | null {
  const past = useAnswer((signal) => history(namespace, "15m", `${STEP_SECONDS}s`, signal), [namespace, name], STEP_SECONDS * 1000);
  const drawn = useMemo(() => {
    const times: number[] = [];
    const [calls, failures, p50, p95, p99]: (number | null)[][] = [[], [], [], [], []];
    for (const frame of past.value ?? []) {
      const time = Date.parse(text(frame, "time"));
      // The last step is mostly one that has only begun.
      if (!Number.isFinite(time) || count(frame, "windowSeconds") < STEP_SECONDS / 2) continue;
      const own = list(frame, "items").filter((item) => text(item, "destination", "namespace") === namespace && text(item, "destination", "workload") === name);
      const figures = sum(
        own.map((item) => ({
          calls: count(item, "callsPerSecond"),
          failures: count(item, "failuresPerSecond"),
          p50: count(item, "latencyMicros", "p50"),
          p95: number(item, "latencyMicros", "p95") ?? count(item, "latencyMicros", "p90"),
          p99: count(item, "latencyMicros", "p99"),
          bytes: 0,
          recent: undefined,
        })),
      );
      times.push(time / 1000);
      calls?.push(figures.calls);
      failures?.push(figures.failures);
      const none = figures.calls === 0;
      p50?.push(none ? null : figures.p50);
      p95?.push(none ? null : figures.p95);
      p99?.push(none ? null : figures.p99);
    }
    return {
      times,
      rates: [
        { name: "calls", colour: "accent", values: calls ?? [] },
        { name: "failed", colour: "bad", values: failures ?? [] },
      ],
      waits: [
        { name: "p50", colour: "ok", values: p50 ?? [] },
        { name: "p95", colour: "accent", values: p95 ?? [] },
        { name: "p99", colour: "busy", values: p99 ?? [] },
      ],
    };
  }, [past.value]);
  if (past.value === undefined) return past.error === undefined ? <Loading what="the last 15 minutes" /> : null;
  return (
    <div class="columns">
      <Chart title="Calls a second, 15 minutes" times={drawn.times} curves={drawn.rates} shown={rate} />
      <Chart title="How long they took" times={drawn.times} curves={drawn.waits} shown={micros} />
    </div>
  );
}

interface Route {
  readonly route: string;
  calls: number;
  failed: number;
  readonly took: number[];
}

const ROUTES_MAX = 200;
const SAMPLES_MAX = 500;

/** A path with what differs from call to call left out. */
export function routeOf(method: string, path: string): string {
  const parts = path.split("?", 1)[0]?.split("/") ?? [];
  const same = parts.map((part) => (/^(?:\d+|[0-9a-f]{8,}|[0-9a-f-]{32,}|:[\w+-]+:)$/i.test(part) ? "*" : part));
  return `${method} ${same.join("/")}`;
}

/** Calls by route, counted here while somebody looks: the mesh counts by who calls whom. */
function Routes({ namespace, name }: { namespace: string; name: string }): JSX.Element {
  const routes = useSignal<ReadonlyMap<string, Route>>(new Map());
  const began = useSignal(Date.now());
  const refused = useSignal("");
  useEffect(() => {
    const stop = new AbortController();
    const known = new Map<string, Route>();
    began.value = Date.now();
    const timer = setInterval(() => (routes.value = new Map(known)), 1000);
    const query = { watch: true, workload: name, reporter: "destination" };
    lines(
      url(meshPath("tap", namespace), query),
      (line) => {
        const call: unknown = JSON.parse(line);
        if (text(call, "destination", "workload") !== name) return;
        const route = routeOf(text(call, "method"), text(call, "path"));
        let one = known.get(route);
        if (one === undefined) {
          if (known.size >= ROUTES_MAX) return;
          one = { route, calls: 0, failed: 0, took: [] };
          known.set(route, one);
        }
        one.calls += 1;
        const code = count(call, "code");
        if (code >= 500 || code === 0) one.failed += 1;
        one.took[one.calls % SAMPLES_MAX] = count(call, "durationMicros");
      },
      { signal: stop.signal },
    ).catch((error: unknown) => {
      if (!stop.signal.aborted) refused.value = error instanceof Error ? error.message : "";
    });
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [namespace, name]);
  const seconds = Math.max(1, (Date.now() - began.value) / 1000);
  const at = (route: Route, share: number) => {
    const took = route.took.filter((one) => one !== undefined).sort((a, b) => a - b);
    return took[Math.min(took.length - 1, Math.floor(took.length * share))] ?? 0;
  };
  const cols: Col<Route>[] = [
    { id: "route", title: "Route", by: (route) => route.route, cell: (route) => <Said text={route.route} class="mono" /> },
    { id: "rate", title: "Calls", width: 90, right: true, by: (route) => route.calls, cell: (route) => rate(route.calls / seconds) },
    { id: "success", title: "Success", width: 90, right: true, by: (route) => 1 - route.failed / route.calls, cell: (route) => <span class={route.failed > 0 ? "is-bad-text" : ""}>{percent(1 - route.failed / route.calls)}</span> },
    { id: "p50", title: "p50", width: 84, right: true, spare: true, by: (route) => at(route, 0.5), cell: (route) => micros(at(route, 0.5)) },
    { id: "p95", title: "p95", width: 84, right: true, by: (route) => at(route, 0.95), cell: (route) => micros(at(route, 0.95)) },
  ];
  return (
    <Section title="By route" aside="since this page was opened">
      {refused.value !== "" ? <p class="note"><Said text={refused.value} /></p> : routes.value.size === 0 ? <Empty title="No call yet" /> : <Table label="Calls by route" short rows={[...routes.value.values()]} cols={cols} id={(route) => route.route} sort="rate" descending />}
    </Section>
  );
}

function Revisions({ resource, object, again }: { resource: Resource; object: Item; again: () => void }): JSX.Element {
  const { namespace: where = "", name } = object.metadata;
  const kept = resource.kind === "StatefulSet" || resource.kind === "DaemonSet" ? CONTROLLER_REVISIONS : REPLICA_SETS;
  const state = useObjects({ resource: kept, namespace: where });
  const revisions = revisionsOf(object, state.rows.map((row) => row.object));
  const cols: Col<Revision>[] = [
    { id: "number", title: "Revision", width: 88, by: (one) => one.number, cell: (one) => one.number || "\u2013" },
    { id: "hash", title: "Name", by: (one) => one.name, cell: (one) => <Said text={one.name} /> },
    { id: "images", title: "Image", by: (one) => images(one.template), cell: (one) => <Said text={images(one.template)} class="mono" /> },
    { id: "pods", title: "Pods", width: 72, right: true, by: (one) => one.replicas, cell: (one) => `${one.ready}/${one.replicas}` },
    { id: "made", title: "Made", width: 104, right: true, spare: true, by: (one) => one.created, cell: (one) => <Ago time={one.created} /> },
    {
      id: "do",
      title: "Actions",
      width: 190,
      cell: (one) => (
        <span class="buttons">
          <button type="button" class="button button-quiet" onClick={() => void compare(object, one)}>
            Diff
          </button>
          <Act
            quiet
            on={action("update", resource, where, name)}
            unless={one === revisions[0] ? "this is the newest" : undefined}
            act={() => confirm(`Bring out revision ${one.number} again?`, `The template of ${name} becomes that of revision ${one.number}.`, "Bring it out", () => void doing(`Revision ${one.number} is brought out`, () => bringBack(resource, object, one.template)).then(again))}
          >
            Undo to
          </Act>
        </span>
      ),
    },
  ];
  return instead(state, "revisions", "") ?? (revisions.length === 0 ? <Empty title="No revision is kept">This kind keeps none, or this one is the first.</Empty> : <Table label={`Revisions of ${name}`} short rows={revisions} cols={cols} id={(one) => one.name} sort="number" descending />);
}

async function compare(object: Item, revision: Revision): Promise<void> {
  const { toYaml } = await import("../ui/yaml");
  show(`From revision ${revision.number} to now`, () => <Difference before={toYaml(revision.template)} after={toYaml(at(object, "spec", "template"))} />, true);
}

/** What is at work on it: Services that lead here, policies of these, grants of its account, autoscalers. */
function Applied({ object }: { object: Item }): JSX.Element {
  useFigures();
  const { namespace: where = "", name } = object.metadata;
  const services = useObjects({ resource: SERVICES, namespace: where, every: EVERY_MILLIS });
  const routes = useObjects({ resource: HTTP_ROUTES, namespace: where, every: EVERY_MILLIS });
  const policies = useObjects({ resource: MESH_POLICIES, namespace: where, every: EVERY_MILLIS });
  const faults = useObjects({ resource: FAULTS, namespace: where, every: EVERY_MILLIS });
  const grants = useObjects({ resource: GRANTS, namespace: where, every: EVERY_MILLIS });
  const scalers = useObjects({ resource: AUTOSCALERS, namespace: where, every: EVERY_MILLIS });
  const own = servicesOf(object, services.rows.map((row) => row.object));
  const names = new Set(own.map((service) => service.metadata.name));
  const account = text(object, "spec", "template", "spec", "serviceAccountName") || "default";
  const targets = (item: Item) => {
    const refs = list(item, "spec", "targetRefs");
    return refs.length === 0 || refs.some((ref) => names.has(text(ref, "name")));
  };
  const leads = (route: Item) =>
    list(route, "spec", "parentRefs").some((parent) => text(parent, "kind") === "Service" && names.has(text(parent, "name"))) ||
    list(route, "spec", "rules").some((rule) => list(rule, "backendRefs").some((backend) => names.has(text(backend, "name"))));
  const granted = grants.rows.map((row) => row.object).filter((grant) => {
    const accounts = list(grant, "spec", "serviceAccountNames");
    const labels = texts(grant, "spec", "podSelector", "matchLabels");
    return accounts.includes(account) || selects(labels, texts(object, "spec", "template", "metadata", "labels"));
  });
  const rows: [string, Resource, readonly Item[]][] = [
    ["Services that lead here", SERVICES, own],
    ["Routes", HTTP_ROUTES, routes.rows.map((row) => row.object).filter(leads)],
    ["Mesh policies", MESH_POLICIES, policies.rows.map((row) => row.object).filter(targets)],
    ["Faults", FAULTS, faults.rows.map((row) => row.object).filter(targets)],
    ["Autoscalers", AUTOSCALERS, scalers.rows.map((row) => row.object).filter((scaler) => text(scaler, "spec", "scaleTargetRef", "name") === name)],
  ];
  return (
    <>
      {rows.map(([title, resource, found]) => (
        <Section key={title} title={title}>
          {found.length === 0 ? (
            <p class="muted">none</p>
          ) : (
            <ul class="list">
              {found.map((item) => (
                <li key={item.metadata.uid}>
                  <Link page="object" query={{ kind: nameOf(resource), in: item.metadata.namespace, name: item.metadata.name }}>
                    <Said text={item.metadata.name} />
                  </Link>
                  <span class="why">{partsOf(item)}</span>
                  <Accepted item={item} />
                </li>
              ))}
            </ul>
          )}
        </Section>
      ))}
      {link.value === "refused" ? null : (
        <Section title="In force" aside="what nodes do now with calls to these Services">
          {own.map((service) => {
            const said = badgesOf(snapshot.value.policies.get(keyOf(service)));
            return (
              <div key={service.metadata.uid} class="in-force">
                <h3>
                  <Said text={service.metadata.name} />
                </h3>
                {said.length === 0 ? <p class="muted">handed on as they come</p> : <Badges of={said} />}
              </div>
            );
          })}
          {own.length === 0 ? <p class="muted">none</p> : null}
        </Section>
      )}
      <Section title="What it may" aside={<>as ServiceAccount <Said text={account} /></>}>
        {granted.length === 0 ? (
          <p class="muted">No capability is granted: it can serve, call Services, and do nothing else.</p>
        ) : (
          <ul class="list">
            {granted.map((grant) => (
              <li key={grant.metadata.uid}>
                <Link page="object" query={{ kind: nameOf(GRANTS), in: grant.metadata.namespace, name: grant.metadata.name }}>
                  <Said text={grant.metadata.name} />
                </Link>
                <span class="why">
                  <Said text={capabilities(grant)} />
                </span>
                <Accepted item={grant} />
              </li>
            ))}
          </ul>
        )}
      </Section>
      <Limits object={object} />
    </>
  );
}

function Limits({ object }: { object: Item }): JSX.Element {
  const containers = list(object, "spec", "template", "spec", "containers");
  return (
    <Section title="Limits">
      {containers.map((container) => (
        <Facts
          key={text(container, "name")}
          of={[
            ["Container", <Said text={text(container, "name")} />],
            ...["cpu", "memory"].flatMap((name): [string, string][] => {
              const [request, limit] = [at(container, "resources", "requests", name), at(container, "resources", "limits", name)];
              const said = (value: unknown) => (quantity(value) === undefined ? "none" : String(value));
              return [[name, `${said(request)} promised, ${said(limit)} at most`]];
            }),
          ]}
        />
      ))}
    </Section>
  );
}

function partsOf(item: Item): string {
  const shown = ["timeouts", "retry", "circuitBreaker", "concurrency", "rateLimits", "hedging", "delay", "abort", "duration"].filter((part) => at(item, "spec", part) !== undefined);
  if (shown.length > 0) return shown.join(", ");
  if (item.kind === "HorizontalPodAutoscaler" || at(item, "spec", "maxReplicas") !== undefined) return `${number(item, "spec", "minReplicas") ?? 1} to ${count(item, "spec", "maxReplicas")} replicas`;
  const ports = list(item, "spec", "ports");
  if (ports.length > 0) return ports.map((port) => `${text(port, "name") || "port"} ${count(port, "port")}`).join(", ");
  return list(item, "spec", "hostnames").join(", ");
}

function Accepted({ item }: { item: Item }): JSX.Element | null {
  const bad = conditions(item).find((one) => one.status === "False");
  return bad === undefined ? null : <Standing is="bad" word={bad.reason || bad.type} why={bad.message} />;
}

function capabilities(grant: Item): string {
  return entries(grant, "spec")
    .filter(([name]) => name !== "serviceAccountNames" && name !== "podSelector")
    .map(([name, value]) => (Array.isArray(value) ? `${name}: ${value.map((one) => shortly(one)).join("; ")}` : name))
    .join(", ");
}

function shortly(value: unknown): string {
  const hosts = list(value, "hosts");
  if (hosts.length > 0) return hosts.join(", ");
  return text(value, "store") || text(value, "configMapRef", "name") || text(value, "secretRef", "name") || text(value, "identifier") || "";
}
