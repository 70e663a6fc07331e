/**
 * Is anything wrong? The first line says it; the rest is where, and how the whole is doing.
 *
 * One watch, of Warnings. The rest is asked for again now and then, in as few objects as say it: pods that are not well are chosen by the server.
 */

import type { ComponentChildren, JSX } from "preact";

import { json, url } from "../kube/http";
import { at, count, list, text, type Item } from "../kube/read";
import { DEPLOYMENTS, EVENTS, knownKind, listPath, nameOf, NODES, PODS, ROLLOUTS, STATEFUL_SETS, type Resource } from "../kube/resource";
import { bytes, many, micros, percent, quantity, rate, whole } from "../model/format";
import { failed, health, type Total } from "../model/mesh";
import { together } from "../model/usage";
import { lastSeen, nodeWord, podWord, workloadWord } from "../model/workload";
import { useAnswer, useFigures, useObjects, useTitle } from "../ui/hooks";
import { link, mesh, snapshot, totals } from "../ui/live";
import { namespace } from "../ui/route";
import { Spark } from "../ui/spark";
import { Ago, Empty, instead, Link, Said, Section, Standing } from "../ui/words";

const EVERY_MILLIS = 15_000;
/** Warnings older than this are history. */
const RECENT_MILLIS = 15 * 60_000;
const SHOWN_MAX = 5;

interface Trouble {
  readonly key: string;
  readonly what: string;
  readonly name: string;
  readonly why: string;
  readonly page: string;
  readonly query: Record<string, string>;
}

function workloadTrouble(resource: Resource, object: Item): Trouble[] {
  const said = workloadWord(object, resource.kind);
  if (said.standing !== "bad" && !(said.standing === "busy" && said.ready < said.wanted)) return [];
  const { namespace: ns = "", name } = object.metadata;
  return [
    {
      key: `${resource.kind} ${ns}/${name}`,
      what: resource.kind,
      name: `${ns}/${name}`,
      why: `${said.word}, ${said.ready} of ${said.wanted} ready${said.why === "" ? "" : `: ${said.why}`}`,
      page: "workload",
      query: { kind: nameOf(resource), in: ns, name },
    },
  ];
}

export function Overview(): JSX.Element {
  useTitle("Overview");
  useFigures();
  const ns = namespace.value;
  const warnings = useObjects({ resource: EVENTS, namespace: ns, fields: "type=Warning" });
  const nodes = useObjects({ resource: NODES, every: EVERY_MILLIS });
  const deployments = useObjects({ resource: DEPLOYMENTS, namespace: ns, every: EVERY_MILLIS });
  const rollouts = useObjects({ resource: ROLLOUTS, namespace: ns, every: EVERY_MILLIS });
  const sets = useObjects({ resource: STATEFUL_SETS, namespace: ns, every: EVERY_MILLIS });
  const waiting = useObjects({ resource: PODS, namespace: ns, fields: "status.phase!=Running,status.phase!=Succeeded", every: EVERY_MILLIS });
  const pods = useAnswer((signal) => json(url(listPath(PODS, ns), { limit: 1 }), { signal, accept: "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json" }), [ns], EVERY_MILLIS);
  const servers = useAnswer((signal) => json("/weft/v1/servers", { signal }), [], EVERY_MILLIS);
  const total = list(pods.value, "items").length + count(pods.value, "metadata", "remainingItemCount");
  const now = Date.now();
  const recent = warnings.rows
    .map((row) => row.object)
    .filter((event) => now - Date.parse(lastSeen(event)) < RECENT_MILLIS)
    .sort((a, b) => (lastSeen(a) < lastSeen(b) ? 1 : -1));
  const troubles: Trouble[] = [
    ...nodes.rows.flatMap(({ key, object }): Trouble[] => {
      const said = nodeWord(object);
      return said.standing === "bad" ? [{ key: `Node ${key}`, what: "Node", name: key, why: said.word, page: "node", query: { name: key } }] : [];
    }),
    ...deployments.rows.flatMap((row) => workloadTrouble(DEPLOYMENTS, row.object)),
    ...rollouts.rows.flatMap((row) => workloadTrouble(ROLLOUTS, row.object)),
    ...sets.rows.flatMap((row) => workloadTrouble(STATEFUL_SETS, row.object)),
    ...waiting.rows.flatMap(({ key, object }): Trouble[] => {
      const said = podWord(object);
      return said.standing === "bad" ? [{ key: `Pod ${key}`, what: "Pod", name: key, why: said.why === "" ? said.word : `${said.word}: ${said.why}`, page: "pod", query: { in: object.metadata.namespace ?? "", name: object.metadata.name } }] : [];
    }),
    ...snapshot.value.seen.flatMap(({ edge, figures }): Trouble[] => {
      if (health(figures) !== "failing") return [];
      const to = edge.destination.workload || edge.service.name;
      return [{ key: `Calls ${edge.id}`, what: "Calls", name: `${edge.source.workload} \u2192 ${to}`, why: `${percent(failed(figures))} of ${rate(figures.calls)} fail`, page: "traffic", query: { find: `name = ${to}` } }];
    }),
  ];
  const known = nodes.status !== "loading" && deployments.status !== "loading";
  return (
    <>
      <h1 class="sr">Overview</h1>
      <Verdict troubles={troubles} known={known} blind={nodes.status === "failed" && deployments.status === "failed"} />
      <div class="tiles">
        <CallTiles />
        <Tile name="Nodes" page="nodes">
          {nodes.status === "failed" ? "not told" : `${nodes.rows.filter((row) => nodeWord(row.object).standing !== "bad").length} of ${nodes.rows.length} ready`}
          <ServerWord said={servers.value} />
        </Tile>
        <Tile name="Pods" page="objects" query={{ kind: nameOf(PODS) }}>
          {pods.value === undefined ? (pods.error === undefined ? "\u2026" : "not told") : whole(total)}
          <small>{waiting.rows.length === 0 ? "all run or are done" : `${whole(waiting.rows.length)} ${waiting.rows.length === 1 ? "does" : "do"} not run`}</small>
        </Tile>
        <MemoryTile nodes={nodes.rows.map((row) => row.object)} />
      </div>
      {troubles.length === 0 ? null : (
        <Section title="What is wrong" aside={troubles.length > SHOWN_MAX ? `the first ${SHOWN_MAX} of ${troubles.length}` : undefined}>
          <ul class="list">
            {troubles.slice(0, SHOWN_MAX).map((trouble) => (
              <li key={trouble.key}>
                <Standing is="bad" word={trouble.what} />
                <Link page={trouble.page} query={trouble.query}>
                  <Said text={trouble.name} />
                </Link>
                <span class="why">
                  <Said text={trouble.why} />
                </span>
              </li>
            ))}
          </ul>
        </Section>
      )}
      <div class="columns">
        <Section title="Latest warnings" aside={<Link page="objects" query={{ kind: nameOf(EVENTS) }}>all events</Link>}>
          {recent.length === 0 && warnings.status === "ready" ? (
            <Empty title="No warning in the last 15 minutes" />
          ) : (
            instead(warnings, "warnings", "") ?? (
              <ul class="list two-lines">
                {recent.slice(0, 8).map((event) => (
                  <Warning key={event.metadata.uid} event={event} />
                ))}
              </ul>
            )
          )}
        </Section>
        <Busiest />
      </div>
    </>
  );
}

function Verdict({ troubles, known, blind }: { troubles: readonly Trouble[]; known: boolean; blind: boolean }): JSX.Element {
  const is = !known ? "busy" : troubles.length > 0 ? "bad" : blind ? "off" : "ok";
  const word = !known ? "Looking\u2026" : troubles.length > 0 ? `${many(troubles.length, "thing")} ${troubles.length === 1 ? "needs" : "need"} attention` : blind ? "You may not see enough to tell" : "All is well";
  return (
    <p class={`verdict is-${is}`} role="status">
      <Standing is={is} word={word} />
    </p>
  );
}

function Tile({ name, page, query, children }: { name: string; page: string; query?: Record<string, string>; children: ComponentChildren }): JSX.Element {
  return (
    <Link page={page} query={query ?? {}} class="tile">
      <span class="tile-name">{name}</span>
      <span class="tile-value">{children}</span>
    </Link>
  );
}

function CallTiles(): JSX.Element {
  const past = totals.value;
  const { total } = snapshot.value;
  const curve = (of: (total: Total) => number) => past.map(of);
  if (link.value === "refused")
    return (
      <Tile name="Calls" page="traffic">
        not told
      </Tile>
    );
  const share = failed(total);
  return (
    <>
      <Tile name="Calls" page="traffic">
        {rate(total.calls)}
        <Spark values={curve((one) => one.calls)} label="calls in the last minutes" />
      </Tile>
      <Tile name="Success" page="traffic">
        <span class={share >= 0.1 ? "is-bad-text" : share >= 0.01 ? "is-busy-text" : ""}>{total.calls > 0 ? percent(1 - share) : "no calls"}</span>
        <Spark values={curve((one) => one.failures)} label="failed calls in the last minutes" bad />
      </Tile>
      <Tile name="p95" page="traffic">
        {total.calls > 0 ? micros(total.p95) : "\u2013"}
        <small>
          p50 {micros(total.p50)} &middot; p99 {micros(total.p99)}
        </small>
        <Spark values={curve((one) => one.p95)} label="95th percentile in the last minutes" />
      </Tile>
    </>
  );
}

function ServerWord({ said }: { said: unknown }): JSX.Element | null {
  const servers = list(said, "servers").length || list(said, "items").length;
  if (servers === 0) return null;
  const leader = at(said, "leader") ?? list(said, "servers").map((one) => (at(one, "leader") === true ? at(one, "id") : undefined)).find((id) => id !== undefined);
  return (
    <small>
      {many(servers, "server")}
      {typeof leader === "number" || typeof leader === "string" ? `, ${leader} leads` : ""}
    </small>
  );
}

function MemoryTile({ nodes }: { nodes: readonly Item[] }): JSX.Element | null {
  void snapshot.value;
  const used = [...mesh.nodes.values()].reduce((sum, node) => sum + node.bytes, 0);
  if (used === 0) return null;
  const there = nodes.reduce((sum, node) => sum + (quantity(at(node, "status", "allocatable", "memory")) ?? 0), 0);
  const pods = [...mesh.pods.values()];
  const all = together(pods);
  const mean = all.bytes / (pods.length || 1);
  return (
    <Tile name="Memory" page="nodes">
      {bytes(used)}
      <small>
        of {bytes(there)}
        {pods.length === 0 ? "" : `, ${bytes(mean)} a pod`}
      </small>
      {all.instances === 0 ? null : (
        <small>
          {many(all.instances, "instance")}, {rate(all.starts)} started
        </small>
      )}
    </Tile>
  );
}

function Warning({ event }: { event: Item }): JSX.Element {
  const kind = text(event, "involvedObject", "kind");
  const [ns, name] = [text(event, "involvedObject", "namespace"), text(event, "involvedObject", "name")];
  const resource = knownKind(kind);
  const named = <Said text={`${kind} ${ns === "" ? name : `${ns}/${name}`}`} />;
  const times = count(event, "series", "count") || count(event, "count");
  return (
    <li>
      <span class="standing is-busy">
        <span class="sign" aria-hidden="true">
          !
        </span>
        <Said text={text(event, "reason")} />
      </span>
      {kind === "Pod" ? (
        <Link page="pod" query={{ in: ns, name }}>
          {named}
        </Link>
      ) : resource === undefined ? (
        named
      ) : (
        <Link page="object" query={{ kind: nameOf(resource), in: ns, name }}>
          {named}
        </Link>
      )}
      <span class="muted">
        <Ago time={lastSeen(event)} />
        {times > 1 ? `, ${times} times` : ""}
      </span>
      <span class="why">
        <Said text={text(event, "message") || text(event, "note")} />
      </span>
    </li>
  );
}

function Busiest(): JSX.Element {
  const seen = [...snapshot.value.seen].filter(({ figures }) => figures.calls > 0).sort((a, b) => b.figures.failures - a.figures.failures || b.figures.calls - a.figures.calls);
  return (
    <Section title="Calls that matter" aside={<Link page="traffic">the whole graph</Link>}>
      {link.value === "refused" ? (
        <Empty title="You may not see calls" />
      ) : seen.length === 0 ? (
        <Empty title="No calls now">They show up within a second of being made.</Empty>
      ) : (
        <ul class="list">
          {seen.slice(0, 8).map(({ edge, figures }) => (
            <li key={edge.id}>
              <Standing is={health(figures) === "failing" ? "bad" : health(figures) === "degraded" ? "busy" : "ok"} word={percent(1 - failed(figures))} />
              <span>
                <Said text={edge.source.workload} /> &rarr; <Said text={edge.destination.workload || edge.service.name} />
              </span>
              <span class="muted">
                {rate(figures.calls)} &middot; p95 {micros(figures.p95)}
              </span>
            </li>
          ))}
        </ul>
      )}
    </Section>
  );
}
