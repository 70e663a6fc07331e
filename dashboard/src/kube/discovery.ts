/**
 * Every kind that the server serves, as it tells itself: those that were added by users too.
 *
 * Invariant: one request a page load, and one more when somebody asks for a kind that was not there.
 */

import { json } from "./http";
import { at, list, text } from "./read";
import { knownNamed, nameOf, type Resource } from "./resource";

export interface Served extends Resource {
  readonly verbs: readonly string[];
  readonly shortNames: readonly string[];
  readonly parts: readonly string[];
  readonly categories: readonly string[];
}

const AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

function servedIn(document: unknown): Served[] {
  const found: Served[] = [];
  for (const group of list(document, "items")) {
    const name = text(group, "metadata", "name");
    const seen = new Set<string>();
    // The preferred version of a group is its first; a kind is shown once.
    for (const version of list(group, "versions")) {
      for (const resource of list(version, "resources")) {
        const plural = text(resource, "resource");
        if (plural === "" || seen.has(plural)) continue;
        seen.add(plural);
        found.push({
          group: name,
          version: text(version, "version"),
          plural,
          kind: text(resource, "responseKind", "kind"),
          namespaced: text(resource, "scope") === "Namespaced",
          verbs: texts(resource, "verbs"),
          shortNames: texts(resource, "shortNames"),
          categories: texts(resource, "categories"),
          parts: list(resource, "subresources").map((part) => text(part, "subresource")),
        });
      }
    }
  }
  return found;
}

function texts(value: unknown, field: string): string[] {
  return list(value, field).filter((one): one is string => typeof one === "string");
}

let asked: Promise<Served[]> | undefined;

async function ask(): Promise<Served[]> {
  const [core, groups] = await Promise.all([json("/api", { accept: AGGREGATED }), json("/apis", { accept: AGGREGATED })]);
  return [...servedIn(core), ...servedIn(groups)];
}

/** Kinds that can be listed. */
export async function kinds(again = false): Promise<Served[]> {
  if (asked === undefined || again) {
    asked = ask();
    asked.catch(() => {
      asked = undefined;
    });
  }
  return asked;
}

/** What every kind of Kubernetes' own can. */
const USUAL = ["create", "delete", "get", "list", "patch", "update", "watch"];

export async function kindNamed(name: string): Promise<Served | undefined> {
  const known = knownNamed(name);
  if (known !== undefined) return { ...known, verbs: USUAL, shortNames: [], parts: [], categories: [] };
  const find = (all: Served[]) => all.find((one) => nameOf(one) === name);
  return find(await kinds()) ?? find(await kinds(true));
}

export async function kindOf(apiVersion: string, kind: string): Promise<Served | undefined> {
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/") : ["", apiVersion];
  const find = (all: Served[]) => {
    const same = all.filter((one) => one.group === group && one.kind === kind);
    const found = same.find((one) => one.version === version) ?? same[0];
    // Another version of the kind than the preferred one is served at its own path.
    return found && version !== undefined ? { ...found, version } : undefined;
  };
  return find(await kinds()) ?? find(await kinds(true));
}

/** The schema of a kind, with what it refers to: the document of its group. */
export interface Schemas {
  readonly kind: unknown;
  readonly all: unknown;
}

export async function schemaOf(resource: Resource): Promise<Schemas | undefined> {
  const path = resource.group === "" ? `/openapi/v3/api/${resource.version}` : `/openapi/v3/apis/${resource.group}/${resource.version}`;
  const document = await json(path);
  const all = at(document, "components", "schemas");
  if (typeof all !== "object" || all === null) return undefined;
  for (const schema of Object.values(all)) {
    const is = list(schema, "x-kubernetes-group-version-kind").some(
      (one) => text(one, "group") === resource.group && text(one, "version") === resource.version && text(one, "kind") === resource.kind,
    );
    if (is) return { kind: schema, all };
  }
  return undefined;
}
