/** Pods as rows: how each is, what it uses of what it may, where it is. */

import type { JSX } from "preact";

import { action, may } from "../kube/access";
import { text, type Item } from "../kube/read";
import { nameOf, pathOf, PODS } from "../kube/resource";
import { remove } from "../kube/write";
import { bytes, cores } from "../model/format";
import type { Usage } from "../model/usage";
import { limitsOf, podWord } from "../model/workload";
import { mesh, snapshot } from "./live";
import { go, href } from "./route";
import { Table, type Col } from "./table";
import { soon } from "./toast";
import { Age, Link, Meter, Said, Standing } from "./words";

export function deletePod(pod: Item): void {
  const { name, namespace } = pod.metadata;
  if (may(action("delete", PODS, namespace, name)) === true) soon(`Deleting pod ${name}`, `Pod ${name} is deleted`, () => remove(pathOf(PODS, pod)));
}

/** What a pod uses, as the stream of figures tells it. */
export function usedBy(pod: Item): Usage | undefined {
  void snapshot.value;
  return mesh.pods.get(`${pod.metadata.namespace ?? ""}/${pod.metadata.name}`);
}

export function Memory({ pod }: { pod: Item }): JSX.Element {
  const used = usedBy(pod);
  const limit = limitsOf(pod["spec"]).limit["memory"];
  if (used === undefined) return <span class="muted">&ndash;</span>;
  return limit === undefined ? <>{bytes(used.bytes)}</> : <Meter share={used.bytes / limit} text={bytes(used.bytes)} />;
}

const COLS: readonly Col<Item>[] = [
  {
    id: "state",
    title: "State",
    width: 150,
    by: (pod) => podWord(pod).word,
    cell: (pod) => {
      const said = podWord(pod);
      return <Standing is={said.standing} word={said.word} why={said.why} />;
    },
  },
  { id: "name", title: "Pod", by: (pod) => pod.metadata.name, cell: (pod) => <Link page="pod" query={{ in: pod.metadata.namespace, name: pod.metadata.name }}><Said text={pod.metadata.name} /></Link> },
  { id: "ready", title: "Ready", width: 68, right: true, by: (pod) => podWord(pod).ready, cell: (pod) => `${podWord(pod).ready}/${podWord(pod).containers}` },
  { id: "restarts", title: "Restarts", width: 80, right: true, spare: true, by: (pod) => podWord(pod).restarts, cell: (pod) => podWord(pod).restarts },
  { id: "cpu", title: "CPU", width: 72, right: true, spare: true, by: (pod) => usedBy(pod)?.milliCores ?? -1, cell: (pod) => (usedBy(pod) === undefined ? <span class="muted">&ndash;</span> : cores(usedBy(pod)?.milliCores ?? 0)) },
  { id: "memory", title: "Memory", width: 128, right: true, by: (pod) => usedBy(pod)?.bytes ?? -1, cell: (pod) => <Memory pod={pod} /> },
  { id: "node", title: "Node", width: 120, spare: true, by: (pod) => text(pod, "spec", "nodeName"), cell: (pod) => (text(pod, "spec", "nodeName") === "" ? <span class="muted">nowhere yet</span> : <Link page="node" query={{ name: text(pod, "spec", "nodeName") }}><Said text={text(pod, "spec", "nodeName")} /></Link>) },
  { id: "age", title: "Age", width: 84, right: true, spare: true, by: (pod) => pod.metadata.creationTimestamp ?? "", cell: (pod) => <Age time={pod.metadata.creationTimestamp} /> },
];

export function PodTable({ pods, label, short = false }: { pods: readonly Item[]; label: string; short?: boolean }): JSX.Element {
  return (
    <Table
      label={label}
      rows={pods}
      cols={COLS}
      short={short}
      id={(pod) => pod.metadata.uid ?? pod.metadata.name}
      sort="name"
      address={(pod) => href("pod", { in: pod.metadata.namespace, name: pod.metadata.name })}
      keys={{
        l: (pod) => go(href("logs", { in: pod.metadata.namespace, pod: pod.metadata.name })),
        s: (pod) => go(href("pod", { in: pod.metadata.namespace, name: pod.metadata.name, tab: "console" })),
        y: (pod) => go(href("object", { kind: nameOf(PODS), in: pod.metadata.namespace, name: pod.metadata.name, tab: "yaml" })),
        "ctrl-d": deletePod,
      }}
    />
  );
}
