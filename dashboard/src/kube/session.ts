/**
 * Who is here: the session's user, and the ways to become one.
 *
 * Invariants: no credential is kept on this side: a link, a token or a certificate is handed to the server, which gives a cookie that no
 * script can read; a link leaves the address bar before anything else is done; one of another's making does not replace a session unasked.
 */

import { effect, signal } from "@preact/signals";

import * as access from "./access";
import { forgetAll } from "./collection";
import { json, told } from "./http";
import { list, text } from "./read";

const SESSION = "/dashboard/session";

export interface Session {
  readonly user: string;
  readonly groups: readonly string[];
  readonly expires: string;
  readonly by: string;
  /** The name in a certificate that the browser has shown. */
  readonly certificate: string;
  readonly issuers: readonly { readonly url: string; readonly path: string }[];
}

/** Who was here a moment ago, by what this tab remembers: pages begin to ask as him while the server says who it is. */
const REMEMBERED = "weft.session";

function remembered(): Session | undefined {
  // Who comes with a link may become another one.
  if (new URLSearchParams(location.hash.slice(1)).has("link")) return undefined;
  try {
    const said: unknown = JSON.parse(sessionStorage.getItem(REMEMBERED) ?? "null");
    const user = text(said, "user");
    if (user === "" || !(Date.parse(text(said, "expires")) > Date.now())) return undefined;
    const groups = list(said, "groups").filter((group): group is string => typeof group === "string");
    return { user, groups, expires: text(said, "expires"), by: text(said, "by"), certificate: "", issuers: [] };
  } catch {
    return undefined;
  }
}

/** Undefined until it is known. */
export const session = signal<Session | undefined>(remembered());

effect(() => {
  const here = session.value;
  try {
    if (here === undefined || here.user === "") sessionStorage.removeItem(REMEMBERED);
    else sessionStorage.setItem(REMEMBERED, JSON.stringify({ user: here.user, groups: here.groups, expires: here.expires, by: here.by }));
  } catch {
    // Then the next page waits for the server.
  }
});

export const problem = signal("");
/** A link that came while another user is here: what he has to be asked about. */
export const offered = signal<{ readonly link: string; readonly to: string } | undefined>(undefined);

function read(said: unknown): Session {
  return {
    user: text(said, "user", "name"),
    groups: list(said, "user", "groups").filter((group): group is string => typeof group === "string"),
    expires: text(said, "expires"),
    by: text(said, "by"),
    certificate: text(said, "certificate", "name"),
    issuers: list(said, "issuers").map((issuer) => ({ url: text(issuer, "url"), path: text(issuer, "path") })),
  };
}

/** What a link's address hands over, which is taken out of it at once. */
function handed(): { link: string; to: string } | undefined {
  const words = new URLSearchParams(location.hash.slice(1));
  const link = words.get("link") ?? "";
  // What became of signing in elsewhere.
  const told = words.get("signin") ?? "";
  if (told !== "") {
    problem.value = told;
    history.replaceState(null, "", location.pathname + location.search);
  }
  if (link === "") return undefined;
  const to = words.get("to") ?? "";
  const safe = to.startsWith("/dashboard/") && !to.startsWith("/dashboard/session") ? to : "";
  history.replaceState(null, "", safe === "" ? location.pathname + location.search : safe);
  // Whoever shows the place hears of it as if the user had gone there.
  window.dispatchEvent(new PopStateEvent("popstate"));
  return { link, to: safe };
}

export async function begin(): Promise<void> {
  const given = handed();
  try {
    const here = read(await json(SESSION));
    if (session.peek() !== undefined && session.peek()?.user !== here.user) {
      access.forget();
      forgetAll();
    }
    if (given !== undefined && here.user !== "") offered.value = given;
    else if (given !== undefined) {
      await signIn({ link: given.link });
      if (session.peek() !== undefined) return;
    }
    session.value = here;
  } catch (error) {
    problem.value = told(error);
    session.value = { user: "", groups: [], expires: "", by: "", certificate: "", issuers: [] };
  }
}

export type Credential = { readonly link: string } | { readonly token: string } | { readonly certificate: true };

/** Becomes the user of a credential; says in `problem` why not. */
export async function signIn(by: Credential): Promise<void> {
  try {
    const said = read(await json(SESSION, { method: "POST", body: by }));
    access.forget();
    forgetAll();
    problem.value = "";
    offered.value = undefined;
    session.value = said;
  } catch (error) {
    problem.value = told(error);
  }
}

export async function signOut(): Promise<void> {
  await json(SESSION, { method: "DELETE" }).catch(() => undefined);
  lost("");
  await again();
}

/** The server does not know this session any more: what was shown stays away until somebody signs in. */
export function lost(why: string): void {
  if (session.peek() === undefined || session.peek()?.user === "") return;
  access.forget();
  forgetAll();
  problem.value = why;
  session.value = { ...(session.peek() as Session), user: "" };
}

/** Which ways there are, asked anew. */
export async function again(): Promise<void> {
  try {
    session.value = read(await json(SESSION));
  } catch (error) {
    problem.value = told(error);
  }
}
