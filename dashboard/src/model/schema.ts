/**
 * Where one is in a schema, by where one is in a text of YAML: for help while somebody writes.
 *
 * Only the indentation of lines is read, as a text that is being written is mostly not yet well-formed.
 */

import { at, entries, list, text } from "../kube/read";

/** Names from the outermost to where a line stands; `0` for an element of a list. */
export function pathAt(lines: readonly string[], row: number): string[] {
  const path: string[] = [];
  let room = Number.POSITIVE_INFINITY;
  for (let index = row; index >= 0; index -= 1) {
    const line = lines[index] ?? "";
    if (line === "---" && index < row) break;
    const parts = /^(\s*)((?:- )*)(?:([^\s:#"'-][^:#]*|"[^"]*"):(?:\s|$))?/.exec(line);
    if (parts === null || line.trim() === "" || line.trim().startsWith("#")) continue;
    const [, space = "", dashes = "", name] = parts;
    const key = space.length + dashes.length;
    if (name !== undefined && key < room) {
      path.unshift(name.replace(/^"|"$/g, "").trim());
      room = key;
    }
    if (dashes !== "" && space.length < room) {
      path.unshift("0");
      room = space.length;
      // What holds the list stands at the dash's own room, or before it.
      for (let above = index - 1; above >= 0; above -= 1) {
        const holder = /^(\s*)(?:- )*([^\s:#-][^:]*):\s*$/.exec(lines[above] ?? "");
        const at = /^(\s*(?:- )*)/.exec(lines[above] ?? "")?.[0].length ?? 0;
        if (holder !== null && at <= space.length) {
          room = at + 1;
          index = above + 1;
          break;
        }
      }
    }
    if (room === 0) break;
  }
  return path;
}

const DEEPEST = 16;

/** What a schema says in place of a reference. */
export function resolved(schema: unknown, all: unknown, depth = 0): unknown {
  if (depth > DEEPEST) return undefined;
  const reference = text(schema, "$ref") || text(at(schema, "allOf", 0), "$ref");
  if (reference === "") return schema;
  const name = reference.slice(reference.lastIndexOf("/") + 1);
  const target = resolved(at(all, name), all, depth + 1);
  const said = text(schema, "description");
  return said === "" || typeof target !== "object" ? target : { ...target, description: said };
}

/** The schema at a path; undefined where there is none. */
export function schemaAt(kind: unknown, all: unknown, path: readonly string[]): unknown {
  let here = resolved(kind, all);
  for (const name of path) {
    if (name === "0") here = resolved(at(here, "items"), all);
    else here = resolved(at(here, "properties", name) ?? at(here, "additionalProperties"), all);
    if (here === undefined || here === true) return undefined;
  }
  return here;
}

export interface Field {
  readonly name: string;
  readonly type: string;
  readonly description: string;
  readonly required: boolean;
}

export function typeOf(schema: unknown): string {
  const type = text(schema, "type");
  if (type === "array") return "list";
  if (type !== "") return text(schema, "format") === "int-or-string" ? "number or text" : type;
  if (at(schema, "x-kubernetes-int-or-string") === true) return "number or text";
  return at(schema, "properties") === undefined ? "any" : "object";
}

/** What may stand at a path. */
export function fieldsOf(schema: unknown, all: unknown): Field[] {
  const required = list(schema, "required");
  return entries(schema, "properties").map(([name, part]) => {
    const whole = resolved(part, all);
    return { name, type: typeOf(whole), description: text(whole, "description"), required: required.includes(name) };
  });
}
