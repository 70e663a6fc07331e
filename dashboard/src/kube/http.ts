/**
 * Requests to the server this page came from, as the user of its session.
 *
 * Invariants: every request carries the session's header, which no other origin can send; what is refused is an `ApiError` in the API's
 * own words; a 401 is told to whoever listens, once a request, so that the page can ask who is there.
 */

import { count, text } from "./read";

/** With it a request is the session's. */
const SESSION = { "Weft-Session": "1" } as const;

/** Longest line of a stream that is taken: an object of 3 MiB, as the server stores at most, and its frame. */
const LINE_CHARACTERS_MAX = 8 << 20;

export class ApiError extends Error {
  constructor(
    readonly code: number,
    readonly reason: string,
    message: string,
    /** The whole Status, for its causes. */
    readonly status: unknown = undefined,
  ) {
    super(message);
    this.name = "ApiError";
  }

  get forbidden(): boolean {
    return this.code === 403;
  }
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

export interface Ask {
  readonly method?: Method;
  readonly body?: unknown;
  /** Of the body; JSON where nothing is said. A body of text is sent as it is. */
  readonly type?: string;
  readonly accept?: string;
  readonly signal?: AbortSignal | undefined;
}

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** A path with its query; what is undefined is left out. */
export function url(path: string, query: Query = {}): string {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") asked.set(name, String(value));
  const said = asked.toString();
  return said === "" ? path : `${path}?${said}`;
}

let unauthorized: () => void = () => undefined;

/** What is done when the server no longer knows who this is. */
export function onUnauthorized(told: () => void): void {
  unauthorized = told;
}

async function refusal(answer: Response): Promise<ApiError> {
  const body = await answer.text().catch(() => "");
  try {
    const status: unknown = JSON.parse(body);
    const message = text(status, "message");
    if (message !== "") return new ApiError(count(status, "code") || answer.status, text(status, "reason"), message, status);
  } catch {
    // Not in the API's words: a proxy's, or nobody's.
  }
  const said = body.trim().slice(0, 500);
  return new ApiError(answer.status, "", said === "" ? `the server answered ${answer.status}` : said);
}

export async function send(path: string, ask: Ask = {}): Promise<Response> {
  const headers: Record<string, string> = { ...SESSION, Accept: ask.accept ?? "application/json" };
  let body: string | undefined;
  if (ask.body !== undefined) {
    headers["Content-Type"] = ask.type ?? "application/json";
    body = typeof ask.body === "string" ? ask.body : JSON.stringify(ask.body);
  }
  let answer: Response;
  try {
    const init: RequestInit = { method: ask.method ?? "GET", headers, credentials: "same-origin", cache: "no-store" };
    if (body !== undefined) init.body = body;
    if (ask.signal !== undefined) init.signal = ask.signal;
    answer = await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "Unreachable", "the server cannot be reached; this is tried again");
  }
  if (answer.ok) return answer;
  const refused = await refusal(answer);
  if (answer.status === 401) unauthorized();
  throw refused;
}

export async function json(path: string, ask: Ask = {}): Promise<unknown> {
  const answer = await send(path, ask);
  if (answer.status === 204) return undefined;
  return answer.json();
}

export async function words(path: string, ask: Ask = {}): Promise<string> {
  return (await send(path, { accept: "*/*", ...ask })).text();
}

/** Lines of an answer as they come, until it ends or the signal says so. */
export async function lines(path: string, each: (line: string) => void, ask: Ask = {}, begun: () => void = () => undefined): Promise<void> {
  const answer = await send(path, ask);
  begun();
  if (answer.body === null) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      let from = 0;
      for (let end = value.indexOf("\n"); end >= 0; end = value.indexOf("\n", from)) {
        const line = rest + value.slice(from, end);
        rest = "";
        from = end + 1;
        if (line !== "") each(line);
      }
      rest += value.slice(from);
      if (rest.length > LINE_CHARACTERS_MAX) throw new ApiError(0, "TooLong", "a line of the stream is too long");
    }
    if (rest !== "") each(rest);
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** What to show of anything that was thrown. */
export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function aborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
