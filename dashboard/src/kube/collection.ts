/**
 * Objects of a kind as they are now: listed in pieces, then watched, and shared by everybody on the page who looks at the same ones.
 *
 * Invariants: what is shown is a state the server had; a watch that is cut goes on where it was, or begins anew where the server has
 * forgotten that place, and meanwhile the last state stays, marked as stale; changes are gathered for `GATHER_MILLIS`, so that a thousand
 * of them are drawn once; when nobody looks any more the watch ends.
 */

import { signal, type ReadonlySignal } from "@preact/signals";

import { aborted, ApiError, json, lines, told, url } from "./http";
import { item, keyOf, list, text, type Item } from "./read";
import { listPath, type Resource } from "./resource";

/** Objects of one piece of a list: the first, which is as much as is seen at once, is drawn while the others come. */
const FIRST_PIECE = 100;
const PIECE = 1000;
const GATHER_MILLIS = 200;
const PAUSE_MILLIS_MIN = 500;
const PAUSE_MILLIS_MAX = 10_000;
const PAUSE_MILLIS_REFUSED = 30_000;
/** For so long a collection lives on after the last one left: pages that follow each other share it. */
const LINGER_MILLIS = 5000;
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

export interface Column {
  readonly name: string;
  readonly type: string;
  readonly format: string;
  readonly description: string;
  readonly priority: number;
}

/** An object, and its cells where a table was asked for. */
export interface Row {
  readonly key: string;
  readonly object: Item;
  readonly cells: readonly unknown[];
}

export interface State {
  readonly status: "loading" | "ready" | "failed";
  /** Whether there may be more than is shown, as pieces are still coming. */
  readonly partial: boolean;
  /** Whether the connection is cut, so that it may be otherwise by now. */
  readonly stale: boolean;
  readonly error: ApiError | undefined;
  readonly rows: readonly Row[];
  readonly columns: readonly Column[];
}

export interface Selection {
  readonly resource: Resource;
  readonly namespace?: string | undefined;
  readonly labels?: string | undefined;
  readonly fields?: string | undefined;
  /** By its printer columns instead of whole. */
  readonly table?: boolean | undefined;
  /** Listed again after so many milliseconds, instead of watched: what a page shows beside what it is about. */
  readonly every?: number | undefined;
}

const EMPTY: State = { status: "loading", partial: true, stale: false, error: undefined, rows: [], columns: [] };

function slim(object: Item): Item {
  const metadata = object.metadata as { managedFields?: unknown };
  // Half of an object, and shown nowhere but in its YAML, which is asked for again.
  delete metadata.managedFields;
  return object;
}

/** Waits; nobody is asked while nobody sees the page. */
async function rest(millis: number, stop: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, millis);
    stop.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
  while (document.hidden && !stop.aborted) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

class Collection {
  readonly state = signal<State>(EMPTY);
  users = 0;
  #rows = new Map<string, Row>();
  #columns: readonly Column[] = [];
  #version = "";
  #stop = new AbortController();
  #gather: ReturnType<typeof setTimeout> | undefined;
  #patch: Partial<State> = {};

  constructor(readonly selection: Selection) {
    void this.#run();
  }

  close(): void {
    this.#stop.abort();
    clearTimeout(this.#gather);
  }

  #publish(patch: Partial<State>, now = false): void {
    this.#patch = { ...this.#patch, ...patch };
    if (now) {
      clearTimeout(this.#gather);
      this.#gather = undefined;
      this.#draw();
    } else this.#gather ??= setTimeout(() => this.#draw(), GATHER_MILLIS);
  }

  #draw(): void {
    this.#gather = undefined;
    this.state.value = { ...this.state.value, rows: [...this.#rows.values()], columns: this.#columns, ...this.#patch };
    this.#patch = {};
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let pause = PAUSE_MILLIS_MIN;
    while (!signal.aborted) {
      try {
        if (this.#version === "") await this.#list();
        if (this.selection.every !== undefined) {
          await rest(this.selection.every, signal);
          this.#version = "";
          continue;
        }
        await this.#watch(() => {
          pause = PAUSE_MILLIS_MIN;
        });
        continue;
      } catch (error) {
        if (signal.aborted || aborted(error)) return;
        const refused = error instanceof ApiError ? error : new ApiError(0, "", told(error));
        if (refused.code === 410) {
          this.#version = "";
          continue;
        }
        const known = this.state.value.status === "ready";
        this.#publish(known && !refused.forbidden ? { stale: true, error: refused } : { status: "failed", partial: false, error: refused }, true);
        // What was refused is not allowed a moment later.
        if (refused.code >= 400 && refused.code < 405) pause = PAUSE_MILLIS_REFUSED;
      }
      await rest(pause * (0.75 + Math.random() / 2), signal);
      pause = Math.min(Math.max(PAUSE_MILLIS_MIN, pause * 2), PAUSE_MILLIS_MAX);
    }
  }

  #asked(): { labelSelector: string | undefined; fieldSelector: string | undefined } {
    return { labelSelector: this.selection.labels, fieldSelector: this.selection.fields };
  }

  #ask(): { accept: string; signal: AbortSignal } {
    return { accept: this.selection.table ? TABLE : "application/json", signal: this.#stop.signal };
  }

  async #list(): Promise<void> {
    const path = listPath(this.selection.resource, this.selection.namespace);
    const fresh = new Map<string, Row>();
    let next = "";
    let first = true;
    do {
      const piece = await json(url(path, { ...this.#asked(), limit: first ? FIRST_PIECE : PIECE, continue: next }), this.#ask());
      this.#take(piece, (row) => fresh.set(row.key, row));
      next = text(piece, "metadata", "continue");
      this.#version = text(piece, "metadata", "resourceVersion");
      // Of a list that is anew only the whole takes the place of what is shown.
      if (this.state.value.status !== "ready" || next === "") this.#rows = new Map(fresh);
      this.#publish({ status: "ready", partial: next !== "", stale: false, error: undefined }, first || next === "");
      first = false;
    } while (next !== "");
  }

  #take(document: unknown, put: (row: Row) => void): void {
    if (text(document, "kind") === "Table") {
      const columns = list(document, "columnDefinitions");
      if (columns.length > 0)
        this.#columns = columns.map((column) => ({
          name: text(column, "name"),
          type: text(column, "type"),
          format: text(column, "format"),
          description: text(column, "description"),
          priority: Number((column as { priority?: unknown }).priority) || 0,
        }));
      for (const row of list(document, "rows")) {
        const object = item((row as { object?: unknown }).object);
        if (object !== undefined) put({ key: keyOf(object), object: slim(object), cells: list(row, "cells") });
      }
      return;
    }
    for (const one of list(document, "items")) {
      const object = item(one);
      if (object !== undefined) put({ key: keyOf(object), object: slim(object), cells: [] });
    }
  }

  async #watch(begun: () => void): Promise<void> {
    const path = listPath(this.selection.resource, this.selection.namespace);
    const query = { ...this.#asked(), watch: true, allowWatchBookmarks: true, resourceVersion: this.#version };
    await lines(url(path, query), (line) => this.#event(JSON.parse(line)), this.#ask(), () => {
      begun();
      if (this.state.value.stale) this.#publish({ stale: false, error: undefined }, true);
    });
  }

  #event(event: unknown): void {
    const type = text(event, "type");
    const object = (event as { object?: unknown }).object;
    if (type === "ERROR") {
      const code = (object as { code?: unknown })?.code;
      throw new ApiError(typeof code === "number" ? code : 410, text(object, "reason"), text(object, "message"), object);
    }
    const version = text(object, "metadata", "resourceVersion");
    if (type === "BOOKMARK") {
      if (version !== "") this.#version = version;
      return;
    }
    const put = (row: Row) => {
      if (type === "DELETED") this.#rows.delete(row.key);
      else this.#rows.set(row.key, row);
      const at = row.object.metadata.resourceVersion;
      if (at !== undefined) this.#version = at;
    };
    if (text(object, "kind") === "Table") this.#take(object, put);
    else {
      const one = item(object);
      if (one !== undefined) put({ key: keyOf(one), object: slim(one), cells: [] });
    }
    this.#publish({});
  }
}

const open = new Map<string, Collection>();

function nameOf(selection: Selection): string {
  const { resource, namespace = "", labels = "", fields = "", table = false, every = 0 } = selection;
  return [resource.group, resource.version, resource.plural, namespace, labels, fields, table, every].join("|");
}

/** Begins to look; the second part ends it. */
export function look(selection: Selection): [ReadonlySignal<State>, () => void] {
  const name = nameOf(selection);
  let found = open.get(name);
  if (found === undefined) {
    found = new Collection(selection);
    open.set(name, found);
  }
  const collection = found;
  collection.users += 1;
  let left = false;
  const leave = () => {
    if (left) return;
    left = true;
    collection.users -= 1;
    setTimeout(() => {
      if (collection.users > 0 || open.get(name) !== collection) return;
      open.delete(name);
      collection.close();
    }, LINGER_MILLIS);
  };
  return [collection.state, leave];
}

/** Another user is there: what was shown is not his. */
export function forgetAll(): void {
  for (const collection of open.values()) collection.close();
  open.clear();
}
