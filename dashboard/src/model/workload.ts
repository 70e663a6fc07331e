/**
 * What objects that run pods say of themselves, in words: is it well, is it on its way, what is wrong.
 *
 * Invariants: pure; reasons are the API's own words; what the status does not say is not guessed.
 */

import { at, condition, conditions, count, flag, list, number, selects, text, texts, type Item } from "../kube/read";
import { quantity } from "./format";

export type Standing = "ok" | "busy" | "bad" | "off";

export interface Word {
  readonly standing: Standing;
  readonly word: string;
  /** Why, where it is not well. */
  readonly why: string;
  readonly ready: number;
  readonly wanted: number;
}

export function workloadWord(object: Item, kind: string): Word {
  const wanted = number(object, "spec", "replicas") ?? 1;
  const ready = count(object, "status", "readyReplicas");
  const word = (standing: Standing, word: string, why = "", of = wanted, done = ready): Word => ({ standing, word, why, ready: done, wanted: of });
  const observed = count(object, "status", "observedGeneration") >= (object.metadata.generation ?? 0);
  switch (kind) {
    case "Deployment": {
      const failure = condition(object, "ReplicaFailure");
      if (failure?.status === "True") return word("bad", "Failing", failure.message);
      const progressing = condition(object, "Progressing");
      if (progressing?.status === "False") return word("bad", "Stuck", progressing.message);
      const available = condition(object, "Available");
      if (wanted === 0) return word("off", "Scaled to 0");
      if (!observed || count(object, "status", "updatedReplicas") < wanted) return word("busy", "Updating", progressing?.message);
      if (ready < wanted) return word(available?.status === "False" ? "bad" : "busy", "Not ready", available?.message);
      return word("ok", "Ready");
    }
    case "StatefulSet":
      if (wanted === 0) return word("off", "Scaled to 0");
      if (!observed || (text(object, "status", "updateRevision") !== text(object, "status", "currentRevision") && count(object, "status", "updatedReplicas") < wanted)) return word("busy", "Updating");
      return ready < wanted ? word("busy", "Not ready") : word("ok", "Ready");
    case "DaemonSet": {
      const nodes = count(object, "status", "desiredNumberScheduled");
      const here = count(object, "status", "numberReady");
      if (!observed || count(object, "status", "updatedNumberScheduled") < nodes) return word("busy", "Updating", "", nodes, here);
      return here < nodes ? word("busy", "Not ready", "", nodes, here) : word("ok", "Ready", "", nodes, here);
    }
    case "Rollout": {
      const phase = text(object, "status", "phase") || "Pending";
      const message = text(object, "status", "message");
      const standing: Standing = phase === "Healthy" ? (ready < wanted ? "busy" : "ok") : phase === "RolledBack" ? "bad" : "busy";
      return word(standing, phase, message);
    }
    case "Job": {
      const completions = number(object, "spec", "completions") ?? 1;
      const done = count(object, "status", "succeeded");
      const bad = condition(object, "Failed");
      if (bad?.status === "True") return word("bad", "Failed", bad.message || bad.reason, completions, done);
      if (condition(object, "Complete")?.status === "True") return word("ok", "Complete", "", completions, done);
      if (flag(object, "spec", "suspend")) return word("off", "Suspended", "", completions, done);
      return word("busy", "Running", "", completions, done);
    }
    case "CronJob": {
      const active = list(object, "status", "active").length;
      if (flag(object, "spec", "suspend")) return word("off", "Suspended", "", active, active);
      return active > 0 ? word("busy", "Running", "", active, active) : word("ok", text(object, "spec", "schedule"), "", 0, 0);
    }
    default:
      return word("ok", "", "", 0, 0);
  }
}

/** How many pods of a pod's containers are up, as kubectl says it. */
export interface PodWord {
  readonly standing: Standing;
  readonly word: string;
  readonly why: string;
  readonly ready: number;
  readonly containers: number;
  readonly restarts: number;
}

const WELL_WAITING = new Set(["ContainerCreating", "PodInitializing"]);

export function podWord(pod: Item): PodWord {
  const statuses = list(pod, "status", "containerStatuses");
  const ready = statuses.filter((status) => flag(status, "ready")).length;
  const restarts = statuses.reduce((sum: number, status) => sum + count(status, "restartCount"), 0);
  const containers = list(pod, "spec", "containers").length;
  const all = { ready, containers, restarts };
  const phase = text(pod, "status", "phase") || "Unknown";
  if (pod.metadata.deletionTimestamp !== undefined) return { standing: "busy", word: "Terminating", why: "", ...all };
  for (const status of [...list(pod, "status", "initContainerStatuses"), ...statuses]) {
    const waiting = text(status, "state", "waiting", "reason");
    if (waiting !== "" && !WELL_WAITING.has(waiting)) return { standing: "bad", word: waiting, why: text(status, "state", "waiting", "message"), ...all };
    const ended = at(status, "state", "terminated");
    if (ended !== undefined && ended !== null && (count(ended, "exitCode") !== 0 || phase === "Failed"))
      return { standing: "bad", word: text(ended, "reason") || `Exit ${count(ended, "exitCode")}`, why: text(ended, "message"), ...all };
  }
  const reason = text(pod, "status", "reason");
  if (phase === "Failed") return { standing: "bad", word: reason || "Failed", why: text(pod, "status", "message"), ...all };
  if (phase === "Succeeded") return { standing: "off", word: "Completed", why: "", ...all };
  const scheduled = condition(pod, "PodScheduled");
  if (phase === "Pending" && scheduled?.status === "False") return { standing: "bad", word: scheduled.reason || "Unscheduled", why: scheduled.message, ...all };
  if (phase !== "Running") return { standing: "busy", word: phase, why: "", ...all };
  if (ready < containers) {
    const unready = conditions(pod).find((one) => one.type === "Ready" && one.status === "False");
    return { standing: "busy", word: "Not ready", why: unready?.message ?? "", ...all };
  }
  return { standing: "ok", word: "Running", why: "", ...all };
}

/** Everything that keeps a pod from running, each in the words of who says it. */
export interface Obstacle {
  readonly from: string;
  readonly reason: string;
  readonly message: string;
  readonly at: string;
}

export function obstacles(pod: Item, events: readonly Item[]): Obstacle[] {
  const found: Obstacle[] = [];
  for (const one of conditions(pod)) {
    if (one.status === "False" && one.message !== "") found.push({ from: `condition ${one.type}`, reason: one.reason, message: one.message, at: one.since });
  }
  for (const status of [...list(pod, "status", "initContainerStatuses"), ...list(pod, "status", "containerStatuses")]) {
    const name = `container ${text(status, "name")}`;
    const waiting = at(status, "state", "waiting");
    if (text(waiting, "message") !== "") found.push({ from: name, reason: text(waiting, "reason"), message: text(waiting, "message"), at: "" });
    for (const ended of [at(status, "state", "terminated"), at(status, "lastState", "terminated")]) {
      if (ended === undefined || ended === null || (count(ended, "exitCode") === 0 && text(ended, "message") === "")) continue;
      const message = text(ended, "message") || `ended with code ${count(ended, "exitCode")}`;
      found.push({ from: name, reason: text(ended, "reason"), message, at: text(ended, "finishedAt") });
    }
  }
  for (const event of events) {
    if (text(event, "type") !== "Warning") continue;
    found.push({ from: text(event, "source", "component") || text(event, "reportingComponent"), reason: text(event, "reason"), message: text(event, "message"), at: lastSeen(event) });
  }
  const seen = new Set<string>();
  return found.filter((one) => !seen.has(one.message) && seen.add(one.message));
}

/** When an event was last seen, in whichever of its fields says so. */
export function lastSeen(event: Item): string {
  return text(event, "series", "lastObservedTime") || text(event, "lastTimestamp") || text(event, "eventTime") || text(event, "firstTimestamp") || (event.metadata.creationTimestamp ?? "");
}

/** "0/3 nodes are available: 2 Insufficient cpu, 1 node(s) …" as reasons, each with its number of nodes. */
export function placement(message: string): { nodes: number; reason: string }[] {
  const rest = /^0\/\d+ nodes are available: (.*?)(?:\. preemption: |\.?$)/s.exec(message)?.[1];
  if (rest === undefined) return [];
  return rest.split(/, (?=\d+ )/).flatMap((part) => {
    const match = /^(\d+) (.*)$/s.exec(part.trim());
    return match === null ? [] : [{ nodes: Number(match[1]), reason: (match[2] ?? "").replace(/\.$/, "") }];
  });
}

/** Labels by which a workload knows its pods. */
export function selectorOf(object: Item): Record<string, string> {
  return texts(object, "spec", "selector", "matchLabels");
}

/** The same as the API takes it. */
export function selectorText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(",");
}

/** Services that lead to pods of a template. */
export function servicesOf(object: Item, services: readonly Item[]): Item[] {
  const labels = texts(object, "spec", "template", "metadata", "labels");
  return services.filter((service) => service.metadata.namespace === object.metadata.namespace && selects(texts(service, "spec", "selector"), labels));
}

/** What all containers together are promised and may take at most, by resource. */
export function limitsOf(spec: unknown): { request: Record<string, number>; limit: Record<string, number> } {
  const sums = { request: {} as Record<string, number>, limit: {} as Record<string, number> };
  for (const container of list(spec, "containers")) {
    for (const [kind, field] of [
      ["request", "requests"],
      ["limit", "limits"],
    ] as const) {
      for (const [name, said] of Object.entries((at(container, "resources", field) as Record<string, unknown> | undefined) ?? {})) {
        const value = quantity(said);
        if (value !== undefined) sums[kind][name] = (sums[kind][name] ?? 0) + value;
      }
    }
  }
  return sums;
}

export interface NodeWord {
  readonly standing: Standing;
  readonly word: string;
  readonly cordoned: boolean;
}

export function nodeWord(node: Item): NodeWord {
  const cordoned = flag(node, "spec", "unschedulable");
  const ready = condition(node, "Ready");
  if (ready?.status !== "True") return { standing: "bad", word: ready?.status === "Unknown" ? "Unreachable" : "Not ready", cordoned };
  const pressed = conditions(node).find((one) => one.type !== "Ready" && one.status === "True");
  if (pressed !== undefined) return { standing: "bad", word: pressed.type, cordoned };
  return cordoned ? { standing: "off", word: "Cordoned", cordoned } : { standing: "ok", word: "Ready", cordoned };
}
