/**
 * What the user may do, so that nothing is offered that would be refused. The server decides all the same.
 *
 * Rules of a namespace are asked for once (SelfSubjectRulesReview) and read here; what is of the whole cluster is asked one by one
 * (SelfSubjectAccessReview). Answers are kept for `KEPT_MILLIS`.
 *
 * Invariant: as long as the answer is not there, it is "no": a control is enabled late rather than wrongly.
 */

import { signal } from "@preact/signals";

import { json } from "./http";
import { flag, list } from "./read";
import type { Resource } from "./resource";

const KEPT_MILLIS = 60_000;

export interface Action {
  readonly verb: string;
  readonly group: string;
  /** With its part, as `pods/exec`. */
  readonly resource: string;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

export function action(verb: string, resource: Resource, namespace?: string, name?: string, part?: string): Action {
  const plural = part === undefined ? resource.plural : `${resource.plural}/${part}`;
  return { verb, group: resource.group, resource: plural, namespace: resource.namespaced ? namespace : undefined, name };
}

export interface Rule {
  readonly verbs: readonly string[];
  readonly groups: readonly string[];
  readonly resources: readonly string[];
  readonly names: readonly string[];
}

/** Whether one of these rules allows it. Pure. */
export function allows(rules: readonly Rule[], asked: Action): boolean {
  const [plural = "", part] = asked.resource.split("/");
  return rules.some((rule) => {
    const named = (all: readonly string[], one: string) => all.includes("*") || all.includes(one);
    const resource =
      named(rule.resources, asked.resource) || (part !== undefined && rule.resources.includes(`*/${part}`)) || (part === undefined && rule.resources.includes(plural));
    const name = rule.names.length === 0 || (asked.name !== undefined && rule.names.includes(asked.name));
    return named(rule.verbs, asked.verb) && named(rule.groups, asked.group) && resource && name;
  });
}

function strings(value: unknown, field: string): string[] {
  return list(value, field).filter((one): one is string => typeof one === "string");
}

export function rulesIn(review: unknown): Rule[] {
  return list(review, "status", "resourceRules").map((rule) => ({
    verbs: strings(rule, "verbs"),
    groups: strings(rule, "apiGroups"),
    resources: strings(rule, "resources"),
    names: strings(rule, "resourceNames"),
  }));
}

interface Kept<T> {
  value: T | undefined;
  until: number;
}

const rules = new Map<string, Kept<Rule[] | "ask">>();
const answers = new Map<string, Kept<boolean>>();
/** Counts what came in, so that who asked asks again. */
const came = signal(0);

function keep<T>(all: Map<string, Kept<T>>, key: string, ask: () => Promise<T>): T | undefined {
  const now = Date.now();
  const kept = all.get(key);
  if (kept !== undefined && kept.until > now) return kept.value;
  const next: Kept<T> = { value: kept?.value, until: now + KEPT_MILLIS };
  all.set(key, next);
  ask().then(
    (value) => {
      next.value = value;
      came.value += 1;
    },
    // Asked again soon; until then it is as it was.
    () => {
      next.until = Date.now() + 5000;
    },
  );
  return next.value;
}

async function rulesOf(namespace: string): Promise<Rule[] | "ask"> {
  const body = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectRulesReview", spec: { namespace } };
  const review = await json("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", { method: "POST", body });
  // Where another authorizer is behind it, rules are not all there is.
  return flag(review, "status", "incomplete") ? "ask" : rulesIn(review);
}

async function allowed(asked: Action): Promise<boolean> {
  const [resource, subresource] = asked.resource.split("/");
  const resourceAttributes = { verb: asked.verb, group: asked.group, resource, subresource, namespace: asked.namespace, name: asked.name };
  const body = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", spec: { resourceAttributes } };
  const review = await json("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", { method: "POST", body });
  return flag(review, "status", "allowed");
}

/** Whether the user may; undefined where that is not known yet. To be called where signals are read. */
export function may(asked: Action): boolean | undefined {
  void came.value;
  if (asked.namespace !== undefined && asked.namespace !== "") {
    const namespace = asked.namespace;
    const known = keep(rules, namespace, () => rulesOf(namespace));
    if (known === undefined) return undefined;
    if (known !== "ask") return allows(known, asked);
  }
  const key = [asked.verb, asked.group, asked.resource, asked.namespace ?? "", asked.name ?? ""].join(" ");
  return keep(answers, key, () => allowed(asked));
}

/** Why a control cannot be used; empty where it can. */
export function refusedBecause(asked: Action): string {
  const known = may(asked);
  if (known === true) return "";
  const where = asked.namespace ? ` in namespace ${asked.namespace}` : "";
  return known === undefined ? "asking whether you may" : `you may not ${asked.verb} ${asked.resource}${where}`;
}

/** Another user is there. */
export function forget(): void {
  rules.clear();
  answers.clear();
  came.value += 1;
}
