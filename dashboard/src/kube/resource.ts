/**
 * Names of what the API serves, and where it is: the path of a list, of an object, of a part of one.
 */

import type { Item } from "./read";

export interface Resource {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

function own(group: string, version: string, plural: string, kind: string, namespaced = true): Resource {
  return { group, version, plural, kind, namespaced };
}

export const PODS = own("", "v1", "pods", "Pod");
export const NODES = own("", "v1", "nodes", "Node", false);
export const NAMESPACES = own("", "v1", "namespaces", "Namespace", false);
export const SERVICES = own("", "v1", "services", "Service");
export const EVENTS = own("", "v1", "events", "Event");
export const DEPLOYMENTS = own("apps", "v1", "deployments", "Deployment");
export const REPLICA_SETS = own("apps", "v1", "replicasets", "ReplicaSet");
export const STATEFUL_SETS = own("apps", "v1", "statefulsets", "StatefulSet");
export const DAEMON_SETS = own("apps", "v1", "daemonsets", "DaemonSet");
export const CONTROLLER_REVISIONS = own("apps", "v1", "controllerrevisions", "ControllerRevision");
export const JOBS = own("batch", "v1", "jobs", "Job");
export const CRON_JOBS = own("batch", "v1", "cronjobs", "CronJob");
export const AUTOSCALERS = own("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler");
export const HTTP_ROUTES = own("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute");
export const ROLLOUTS = own("weft.dev", "v1alpha1", "rollouts", "Rollout");
export const GRANTS = own("weft.dev", "v1alpha1", "capabilitygrants", "CapabilityGrant");
export const MESH_POLICIES = own("weft.dev", "v1alpha1", "meshpolicies", "MeshPolicy");
export const FAULTS = own("weft.dev", "v1alpha1", "faultinjections", "FaultInjection");
export const POD_METRICS = own("metrics.k8s.io", "v1beta1", "pods", "PodMetrics");
export const NODE_METRICS = own("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", false);

/** Kinds that run pods of a template, in the order they are shown in. */
export const WORKLOADS: readonly Resource[] = [DEPLOYMENTS, ROLLOUTS, STATEFUL_SETS, DAEMON_SETS, CRON_JOBS, JOBS];

/** `apps/v1/deployments`, as it stands in links of this page. */
export function nameOf(resource: Resource): string {
  return resource.group === "" ? `${resource.version}/${resource.plural}` : `${resource.group}/${resource.version}/${resource.plural}`;
}

export function apiVersion(resource: Resource): string {
  return resource.group === "" ? resource.version : `${resource.group}/${resource.version}`;
}

function root(group: string, version: string): string {
  return group === "" ? `/api/${version}` : `/apis/${encodeURIComponent(group)}/${encodeURIComponent(version)}`;
}

/** Of all objects, or of those of a namespace. */
export function listPath(resource: Resource, namespace?: string): string {
  const base = root(resource.group, resource.version);
  const place = resource.namespaced && namespace ? `/namespaces/${encodeURIComponent(namespace)}` : "";
  return `${base}${place}/${resource.plural}`;
}

export function objectPath(resource: Resource, namespace: string | undefined, name: string, part?: string): string {
  const path = `${listPath(resource, namespace)}/${encodeURIComponent(name)}`;
  return part === undefined ? path : `${path}/${part}`;
}

export function pathOf(resource: Resource, object: Item, part?: string): string {
  return objectPath(resource, object.metadata.namespace, object.metadata.name, part);
}

const KNOWN: readonly Resource[] = [
  PODS, NODES, NAMESPACES, SERVICES, EVENTS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS, AUTOSCALERS, HTTP_ROUTES,
  ROLLOUTS, GRANTS, MESH_POLICIES, FAULTS,
];

/** A kind that this page knows without asking, by its name in an object or an event. */
export function knownKind(kind: string, group?: string): Resource | undefined {
  return KNOWN.find((resource) => resource.kind === kind && (group === undefined || resource.group === group));
}

/** The same by its name in links of this page. */
export function knownNamed(name: string): Resource | undefined {
  return KNOWN.find((resource) => nameOf(resource) === name);
}

export function groupOf(version: string): string {
  return version.includes("/") ? version.slice(0, version.indexOf("/")) : "";
}
