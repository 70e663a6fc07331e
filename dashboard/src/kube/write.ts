/**
 * What the page changes, each as the smallest patch that says it. Names of managers are the page's own, so that it is told who did it.
 */

import { json, url } from "./http";
import type { Item } from "./read";
import { apiVersion, FAULTS, HTTP_ROUTES, listPath, NODES, objectPath, pathOf, PODS, ROLLOUTS, type Resource } from "./resource";

/** How the API notes who wrote a field. */
export const MANAGER = "weft-dashboard";
const MERGE = "application/merge-patch+json";

export function patch(path: string, body: unknown): Promise<unknown> {
  return json(url(path, { fieldManager: MANAGER }), { method: "PATCH", type: MERGE, body });
}

export function remove(path: string): Promise<unknown> {
  return json(path, { method: "DELETE", body: { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy: "Background" } });
}

export function scale(resource: Resource, object: Item, replicas: number): Promise<unknown> {
  return patch(pathOf(resource, object, "scale"), { spec: { replicas } });
}

/** As `kubectl rollout restart` does it. */
export function restart(resource: Resource, object: Item, time: string): Promise<unknown> {
  return patch(pathOf(resource, object), { spec: { template: { metadata: { annotations: { "kubectl.kubernetes.io/restartedAt": time } } } } });
}

/** Brings out another template: the whole object is written, as a merge would keep what the other lacks. */
export function bringBack(resource: Resource, object: Item, template: unknown): Promise<unknown> {
  const spec = { ...(object["spec"] as Record<string, unknown>), template };
  return json(url(pathOf(resource, object), { fieldManager: MANAGER }), { method: "PUT", body: { ...object, apiVersion: apiVersion(resource), kind: resource.kind, spec } });
}

export function rollout(object: Item, spec: unknown): Promise<unknown> {
  return patch(pathOf(ROLLOUTS, object), { spec });
}

export function cordon(name: string, unschedulable: boolean): Promise<unknown> {
  return patch(objectPath(NODES, undefined, name), { spec: { unschedulable: unschedulable ? true : null } });
}

/** Asks for a pod to go, which its disruption budget may refuse. */
export function evict(pod: Item): Promise<unknown> {
  const { name, namespace } = pod.metadata;
  return json(pathOf(PODS, pod, "eviction"), { method: "POST", body: { apiVersion: "policy/v1", kind: "Eviction", metadata: { name, namespace } } });
}

/** Weights of one rule's backends, against the version that was seen: who was faster is not overwritten. */
export function weigh(route: Item, rule: number, weights: readonly number[]): Promise<unknown> {
  const spec = structuredClone(route["spec"]) as { rules?: { backendRefs?: { weight?: number }[] }[] };
  spec.rules?.[rule]?.backendRefs?.forEach((backend, index) => {
    backend.weight = weights[index] ?? 0;
  });
  return patch(pathOf(HTTP_ROUTES, route), { metadata: { resourceVersion: route.metadata.resourceVersion }, spec: { rules: spec.rules } });
}

export interface FaultWish {
  readonly namespace: string;
  readonly service: string;
  readonly duration: string;
  readonly delay: { readonly duration: string; readonly percent: number } | undefined;
  readonly abort: { readonly httpStatus: number; readonly percent: number } | undefined;
  readonly callers: readonly string[];
}

/** As `weft fault` makes it, under the same name. */
export async function inject(wish: FaultWish): Promise<unknown> {
  const name = `${wish.service}-fault`;
  const spec: Record<string, unknown> = { targetRefs: [{ group: "", kind: "Service", name: wish.service }], duration: wish.duration };
  if (wish.delay !== undefined) spec["delay"] = wish.delay;
  if (wish.abort !== undefined) spec["abort"] = wish.abort;
  if (wish.callers.length > 0) spec["callers"] = wish.callers.map((caller) => callerOf(caller));
  // It lasts from when it is made, so one that is there makes room.
  await remove(objectPath(FAULTS, wish.namespace, name)).catch((error: { code?: number }) => {
    if (error.code !== 404) throw error;
  });
  const body = { apiVersion: apiVersion(FAULTS), kind: FAULTS.kind, metadata: { name, namespace: wish.namespace }, spec };
  return json(url(listPath(FAULTS, wish.namespace), { fieldManager: MANAGER }), { method: "POST", body });
}

function callerOf(said: string): Record<string, string> {
  const slash = said.indexOf("/");
  return slash < 0 ? { serviceAccountName: said } : { namespace: said.slice(0, slash), serviceAccountName: said.slice(slash + 1) };
}
