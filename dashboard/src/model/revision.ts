/**
 * What a workload was before: the revisions that are kept, newest first, each with its template.
 */

import { at, controllerOf, count, text, type Item } from "../kube/read";

export interface Revision {
  readonly name: string;
  readonly number: number;
  readonly hash: string;
  readonly created: string;
  readonly replicas: number;
  readonly ready: number;
  readonly template: unknown;
}

const NUMBERS = ["deployment.kubernetes.io/revision", "weft.dev/revision"];
const HASH = "pod-template-hash";

/** ReplicaSets or ControllerRevisions of an owner. */
export function revisionsOf(owner: Item, kept: readonly Item[]): Revision[] {
  const own = kept.filter((one) => controllerOf(one)?.uid === owner.metadata.uid);
  const revisions = own.map((one): Revision => {
    const annotations = one.metadata.annotations ?? {};
    const said = NUMBERS.map((name) => annotations[name]).find((number) => number !== undefined);
    const template = at(one, "spec", "template") ?? at(one, "data", "spec", "template");
    return {
      name: one.metadata.name,
      number: Number(said ?? count(one, "revision")) || 0,
      hash: one.metadata.labels?.[HASH] ?? one.metadata.labels?.["controller-revision-hash"] ?? "",
      created: one.metadata.creationTimestamp ?? "",
      replicas: count(one, "status", "replicas"),
      ready: count(one, "status", "readyReplicas"),
      template: withoutHash(template),
    };
  });
  return revisions.sort((a, b) => b.number - a.number || (a.created < b.created ? 1 : -1));
}

/** A template as its owner has it: the hash is added to each revision's. */
export function withoutHash(template: unknown): unknown {
  if (text(template, "metadata", "labels", HASH) === "") return template;
  const copy = structuredClone(template) as { metadata: { labels: Record<string, string> } };
  delete copy.metadata.labels[HASH];
  return copy;
}

/** Images of a template, as one line. */
export function images(template: unknown): string {
  const containers = at(template, "spec", "containers");
  return Array.isArray(containers) ? containers.map((container) => text(container, "image")).join(", ") : "";
}
