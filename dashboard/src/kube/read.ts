/**
 * Reads objects that came from outside: every reader says what it wants and gives that, whatever is really there.
 *
 * Invariant: nothing here throws, and what is of another type than was asked for is as good as absent.
 */

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
}

export interface Meta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
}

/** An object of the API. Only its metadata is known to be there. */
export interface Item {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: Meta;
  readonly [field: string]: unknown;
}

type Step = string | number;

/** What stands at a path, or undefined. */
export function at(value: unknown, ...path: Step[]): unknown {
  let here = value;
  for (const step of path) {
    if (typeof here !== "object" || here === null) return undefined;
    here = Object.hasOwn(here, step) ? (here as Record<Step, unknown>)[step] : undefined;
  }
  return here;
}

/** The text at a path, or an empty one. */
export function text(value: unknown, ...path: Step[]): string {
  const found = at(value, ...path);
  return typeof found === "string" ? found : "";
}

/** The number at a path, or zero. */
export function count(value: unknown, ...path: Step[]): number {
  const found = at(value, ...path);
  return typeof found === "number" && Number.isFinite(found) ? found : 0;
}

/** The number at a path, where there is one. */
export function number(value: unknown, ...path: Step[]): number | undefined {
  const found = at(value, ...path);
  return typeof found === "number" && Number.isFinite(found) ? found : undefined;
}

export function flag(value: unknown, ...path: Step[]): boolean {
  return at(value, ...path) === true;
}

/** The list at a path, or an empty one. */
export function list(value: unknown, ...path: Step[]): readonly unknown[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found : [];
}

/** Names and values of the map at a path. */
export function entries(value: unknown, ...path: Step[]): [string, unknown][] {
  const found = at(value, ...path);
  return typeof found === "object" && found !== null && !Array.isArray(found) ? Object.entries(found) : [];
}

/** The map of texts at a path. */
export function texts(value: unknown, ...path: Step[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [name, said] of entries(value, ...path)) if (typeof said === "string") found[name] = said;
  return found;
}

/** A value as an object of the API, where it has a name. */
export function item(value: unknown): Item | undefined {
  return text(value, "metadata", "name") === "" ? undefined : (value as Item);
}

/** What an object is known by among those of its kind. */
export function keyOf(object: Item): string {
  const { namespace, name } = object.metadata;
  return namespace === undefined ? name : `${namespace}/${name}`;
}

export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly since: string;
}

export function conditions(object: unknown): Condition[] {
  return list(object, "status", "conditions").map((found) => ({
    type: text(found, "type"),
    status: text(found, "status"),
    reason: text(found, "reason"),
    message: text(found, "message"),
    since: text(found, "lastTransitionTime"),
  }));
}

export function condition(object: unknown, type: string): Condition | undefined {
  return conditions(object).find((found) => found.type === type);
}

/** Whether labels fit a map of labels: what a Service or a workload selects by. */
export function selects(selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>> = {}): boolean {
  const wanted = Object.entries(selector);
  return wanted.length > 0 && wanted.every(([name, value]) => labels[name] === value);
}

/** The owner that manages an object. */
export function controllerOf(object: Item): OwnerReference | undefined {
  const owners = object.metadata.ownerReferences;
  return Array.isArray(owners) ? owners.find((owner: OwnerReference) => owner.controller === true) : undefined;
}
