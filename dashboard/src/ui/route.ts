/**
 * Where the user is, as the address says it: `/dashboard/PAGE?…`. Everything that a colleague should see by a link is in it.
 *
 * Invariants: names of objects stand in the query, as they may have dots; the namespace is in every address, and remembered for the next visit.
 */

import { computed, signal } from "@preact/signals";

const BASE = "/dashboard";
const REMEMBERED = "weft.namespace";

export interface Place {
  readonly page: string;
  readonly query: URLSearchParams;
}

function read(): Place {
  const path = location.pathname.startsWith(BASE) ? location.pathname.slice(BASE.length) : "";
  return { page: path.replace(/^\/+|\/+$/g, "") || "overview", query: new URLSearchParams(location.search) };
}

export const place = signal<Place>(read());

function remembered(): string {
  try {
    return localStorage.getItem(REMEMBERED) ?? "";
  } catch {
    return "";
  }
}

/** The namespace that is looked at; empty for all. */
export const namespace = signal(place.peek().query.get("ns") ?? remembered());

/** One word of the address's query. */
export function asked(name: string): string {
  return place.value.query.get(name) ?? "";
}

export type Query = Readonly<Record<string, string | undefined>>;

/** The address of a page. An object's own namespace is `in`. */
export function href(page: string, query: Query = {}): string {
  const said = new URLSearchParams();
  if (namespace.value !== "" && query["ns"] === undefined) said.set("ns", namespace.value);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") said.set(name, value);
  const rest = said.toString();
  const path = page === "overview" ? `${BASE}/` : `${BASE}/${page}`;
  return rest === "" ? path : `${path}?${rest}`;
}

export function go(address: string, replace = false): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  arrive();
  if (!replace) window.scrollTo(0, 0);
}

function arrive(): void {
  const now = read();
  place.value = now;
  const ns = now.query.get("ns");
  if (ns !== null && ns !== namespace.peek()) remember(ns);
}

function remember(ns: string): void {
  namespace.value = ns;
  try {
    localStorage.setItem(REMEMBERED, ns);
  } catch {
    // Then it is asked for anew.
  }
}

/** Changes words of the query, and stays on the page. */
export function say(words: Query): void {
  const query = new URLSearchParams(place.peek().query);
  for (const [name, value] of Object.entries(words)) {
    if (value === undefined || value === "") query.delete(name);
    else query.set(name, value);
  }
  const rest = query.toString();
  go(rest === "" ? location.pathname : `${location.pathname}?${rest}`, true);
}

export function lookAt(ns: string): void {
  remember(ns);
  say({ ns });
}

export const page = computed(() => place.value.page);

export function start(): void {
  window.addEventListener("popstate", arrive);
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const anchor = event.target instanceof Element ? event.target.closest("a") : null;
    if (anchor === null || anchor.origin !== location.origin || anchor.target !== "" || anchor.hasAttribute("download")) return;
    if (anchor.pathname !== BASE && !anchor.pathname.startsWith(`${BASE}/`)) return;
    if (anchor.pathname.startsWith(`${BASE}/oidc`) || anchor.hash !== "") return;
    event.preventDefault();
    go(anchor.pathname + anchor.search);
  });
}
