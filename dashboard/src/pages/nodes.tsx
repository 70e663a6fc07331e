/** Nodes: which are well, what runs on each and how full it is; taking one out of work and putting it back. */

import type { JSX } from "preact";

import { action, may } from "../kube/access";
import { json } from "../kube/http";
import { at, conditions, list, text, type Item } from "../kube/read";
import { NODES, nameOf, objectPath, PODS } from "../kube/resource";
import { cordon, evict } from "../kube/write";
import { bytes, cores, many, quantity, rate, whole } from "../model/format";
import { together } from "../model/usage";
import { limitsOf, nodeWord } from "../model/workload";
import { Act } from "../ui/act";
import { confirm } from "../ui/dialog";
import { Events } from "../ui/events";
import { useAnswer, useFigures, useObjects, useTitle } from "../ui/hooks";
import { mesh, snapshot } from "../ui/live";
import { PodTable, usedBy } from "../ui/pods";
import { asked, go, href } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { doing, say } from "../ui/toast";
import { Age, Ago, Facts, Failure, Freshness, instead, Link, Loading, Meter, Said, Section, Standing } from "../ui/words";

const EVERY_MILLIS = 5000;

function roles(node: Item): string {
  const found = Object.keys(node.metadata.labels ?? {}).flatMap((label) => (label.startsWith("node-role.kubernetes.io/") ? [label.slice("node-role.kubernetes.io/".length)] : []));
  return found.join(", ");
}

function used(node: Item): { milliCores: number; bytes: number } | undefined {
  void snapshot.value;
  return mesh.nodes.get(node.metadata.name);
}

function Share({ node, of }: { node: Item; of: "cpu" | "memory" }): JSX.Element {
  const now = used(node);
  const there = quantity(at(node, "status", "allocatable", of));
  if (now === undefined || there === undefined) return <span class="muted">&ndash;</span>;
  return of === "cpu" ? <Meter share={now.milliCores / (there * 1000)} text={cores(now.milliCores)} /> : <Meter share={now.bytes / there} text={bytes(now.bytes)} />;
}

const COLS: readonly Col<Item>[] = [
  { id: "state", title: "State", width: 120, by: (node) => nodeWord(node).word, cell: (node) => <Standing is={nodeWord(node).standing} word={nodeWord(node).word} /> },
  { id: "name", title: "Node", by: (node) => node.metadata.name, cell: (node) => <Link page="node" query={{ name: node.metadata.name }}><Said text={node.metadata.name} /></Link> },
  { id: "roles", title: "Roles", width: 120, spare: true, by: roles, cell: (node) => <Said text={roles(node)} /> },
  { id: "cpu", title: "CPU", width: 140, by: (node) => used(node)?.milliCores ?? -1, cell: (node) => <Share node={node} of="cpu" /> },
  { id: "memory", title: "Memory", width: 150, by: (node) => used(node)?.bytes ?? -1, cell: (node) => <Share node={node} of="memory" /> },
  { id: "pods", title: "Most pods", width: 96, right: true, spare: true, by: (node) => Number(at(node, "status", "capacity", "pods") ?? 0), cell: (node) => String(at(node, "status", "capacity", "pods") ?? "") },
  { id: "version", title: "Version", width: 130, spare: true, by: (node) => text(node, "status", "nodeInfo", "kubeletVersion"), cell: (node) => <Said text={text(node, "status", "nodeInfo", "kubeletVersion")} /> },
  { id: "address", title: "Address", width: 130, spare: true, cell: (node) => <Said text={text(list(node, "status", "addresses").find((one) => text(one, "type") === "InternalIP"), "address")} /> },
  { id: "age", title: "Age", width: 84, right: true, spare: true, by: (node) => node.metadata.creationTimestamp ?? "", cell: (node) => <Age time={node.metadata.creationTimestamp} /> },
];

function turn(node: Item): void {
  const { name } = node.metadata;
  const to = !nodeWord(node).cordoned;
  if (may(action("patch", NODES, undefined, name)) === true) void doing(to ? `${name} takes no more pods` : `${name} takes pods again`, () => cordon(name, to));
}

export function Nodes(): JSX.Element {
  useTitle("Nodes");
  useFigures();
  const nodes = useObjects({ resource: NODES });
  const find = asked("find").toLowerCase();
  const rows = nodes.rows.map((row) => row.object).filter((node) => node.metadata.name.toLowerCase().includes(find));
  return (
    <>
      <div class="page-head">
        <h1>Nodes</h1>
        <div class="tools">
          <Freshness state={nodes} />
        </div>
      </div>
      {instead(nodes, "nodes", "No machine has joined.") ?? (
        <Table label="Nodes" rows={rows} cols={COLS} id={(node) => node.metadata.name} sort="name" address={(node) => href("node", { name: node.metadata.name })} keys={{ u: turn, y: (node) => go(href("object", { kind: nameOf(NODES), name: node.metadata.name, tab: "yaml" })) }} />
      )}
    </>
  );
}

export function Node(): JSX.Element {
  useFigures();
  const name = asked("name");
  useTitle(name);
  const found = useAnswer(async (signal) => (await json(objectPath(NODES, undefined, name), { signal })) as Item, [name], EVERY_MILLIS);
  const pods = useObjects({ resource: PODS, fields: `spec.nodeName=${name}` });
  const servers = useAnswer((signal) => json(objectPath(NODES, undefined, name, "proxy/stats/summary"), { signal }), [name], EVERY_MILLIS);
  const node = found.value;
  if (node === undefined) return found.error === undefined ? <Loading what={name} /> : <Failure error={found.error} again={found.again} />;
  const said = nodeWord(node);
  const running = pods.rows.map((row) => row.object);
  const promised = running.map((pod) => limitsOf(pod["spec"]).request);
  const sum = (resource: string) => promised.reduce((sum, one) => sum + (one[resource] ?? 0), 0);
  const there = (resource: string) => quantity(at(node, "status", "allocatable", resource)) ?? 0;
  const now = used(node);
  const known = running.flatMap((pod) => usedBy(pod) ?? []);
  const instances = known.length === 0 ? undefined : together(known);
  const mine = running.filter((pod) => !(pod.metadata.ownerReferences ?? []).some((owner) => owner.kind === "DaemonSet"));
  return (
    <>
      <div class="page-head">
        <div>
          <p class="crumb">
            <Link page="nodes">Nodes</Link>
          </p>
          <h1>
            <Said text={name} />
          </h1>
          <p class="head-line">
            <Standing is={said.standing} word={said.word} />
            <span>{many(running.length, "pod")}</span>
          </p>
        </div>
        <div class="buttons">
          <Act on={action("patch", NODES, undefined, name)} act={() => void doing(said.cordoned ? `${name} takes pods again` : `${name} takes no more pods`, () => cordon(name, !said.cordoned)).then(found.again)}>
            {said.cordoned ? "Uncordon" : "Cordon"}
          </Act>
          <Act
            danger
            on={[action("patch", NODES, undefined, name), action("create", PODS, undefined, undefined, "eviction")]}
            act={() => confirm(`Drain ${name}?`, `It takes no more pods, and its ${mine.length} pods are asked to go, as far as their disruption budgets let them. Those of DaemonSets stay.`, "Drain", () => void drain(name, mine))}
          >
            Drain
          </Act>
          <Link page="object" query={{ kind: nameOf(NODES), name, tab: "yaml" }} class="button">
            YAML
          </Link>
        </div>
      </div>
      <Section title="Room">
        <Facts
          of={[
            ["CPU in use", now === undefined ? "" : <Meter share={now.milliCores / (there("cpu") * 1000)} text={`${cores(now.milliCores)} of ${cores(there("cpu") * 1000)}`} />],
            ["CPU promised", <Meter share={sum("cpu") / there("cpu")} text={`${cores(sum("cpu") * 1000)} of ${cores(there("cpu") * 1000)}`} />],
            ["Memory in use", now === undefined ? "" : <Meter share={now.bytes / there("memory")} text={`${bytes(now.bytes)} of ${bytes(there("memory"))}`} />],
            ["Memory promised", <Meter share={sum("memory") / there("memory")} text={`${bytes(sum("memory"))} of ${bytes(there("memory"))}`} />],
            ["Instances", instances === undefined ? "" : `${whole(instances.instances)}, ${rate(instances.starts)} started`],
            ["Pods", <Meter share={running.length / (there("pods") || 1)} text={`${running.length} of ${there("pods")}`} />],
            ["Version", <Said text={text(node, "status", "nodeInfo", "kubeletVersion")} />],
            ["Runtime", <Said text={text(node, "status", "nodeInfo", "containerRuntimeVersion")} />],
            ["System", <Said text={`${text(node, "status", "nodeInfo", "operatingSystem")} ${text(node, "status", "nodeInfo", "architecture")}, ${text(node, "status", "nodeInfo", "kernelVersion")}`} />],
            ["Taints", list(node, "spec", "taints").map((taint) => `${text(taint, "key")}:${text(taint, "effect")}`).join(", ")],
            ["Told by the node", servers.value === undefined ? "" : <Ago time={text(servers.value, "node", "cpu", "time")} />],
          ]}
        />
      </Section>
      <Section title="Conditions">
        <ul class="list conditions">
          {conditions(node).map((one) => (
            <li key={one.type}>
              <Standing is={(one.type === "Ready") === (one.status === "True") ? "ok" : "bad"} word={one.type} />
              <span class="why">
                <Said text={one.message || one.reason} />
              </span>
              <span class="muted">
                <Ago time={one.since} />
              </span>
            </li>
          ))}
        </ul>
      </Section>
      <Section title="Pods" aside={`${running.length}`}>
        {instead(pods, "pods", "Nothing runs here.") ?? <PodTable label={`Pods on ${name}`} pods={running} />}
      </Section>
      <Section title="Events">
        <Events namespace="default" name={name} />
      </Section>
    </>
  );
}

/** Pods asked to go at the same time. */
const EVICTIONS_AT_ONCE = 8;
const EVICTION_TRIES = 30;
const REFUSED_MILLIS = 2000;

async function drain(name: string, pods: readonly Item[]): Promise<void> {
  if (!(await doing(`${name} takes no more pods`, () => cordon(name, true)))) return;
  const left = [...pods];
  let gone = 0;
  const refusals: string[] = [];
  const one = async (pod: Item) => {
    for (let attempt = 0; attempt < EVICTION_TRIES; attempt += 1) {
      try {
        await evict(pod);
        gone += 1;
        return;
      } catch (error) {
        const code = (error as { code?: number }).code;
        if (code === 404) return;
        // Its budget has no room for now.
        if (code !== 429 || attempt === EVICTION_TRIES - 1) {
          refusals.push(`${pod.metadata.name}: ${error instanceof Error ? error.message : ""}`);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, REFUSED_MILLIS));
      }
    }
  };
  await Promise.all(
    Array.from({ length: EVICTIONS_AT_ONCE }, async () => {
      for (let pod = left.pop(); pod !== undefined; pod = left.pop()) await one(pod);
    }),
  );
  if (refusals.length > 0) say(`${many(refusals.length, "pod")} stayed on ${name}: ${refusals[0] ?? ""}`, "failed");
  else say(`${name} is drained: ${many(gone, "pod")} went`);
}
