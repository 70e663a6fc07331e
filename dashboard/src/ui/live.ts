/**
 * The one stream of figures: opened when something on the page shows them, for the namespace that is looked at, and closed when nothing does.
 *
 * Invariants: at most one stream is open; a cut one is asked for again, and what was known stays on the page and is marked; a server that says
 * nothing for `SILENCE_MILLIS` is taken for cut.
 */

import { effect, signal } from "@preact/signals";

import { Mesh, NOTHING_SEEN, type Snapshot, type Total } from "../model/mesh";
import { Pasts } from "../model/usage";
import { namespace } from "./route";
import { aborted, ApiError, json, lines, told, url } from "../kube/http";
import { at, list } from "../kube/read";
import { session } from "../kube/session";

const SILENCE_MILLIS = 6000;
const PAUSE_MILLIS_MIN = 500;
const PAUSE_MILLIS_MAX = 5000;
const GROUP = "/apis/mesh.weft.dev/v1";

export type Link = "off" | "connecting" | "live" | "cut" | "refused";

export const link = signal<Link>("off");
export const refusal = signal("");
export const snapshot = signal<Snapshot>(NOTHING_SEEN);
/** Sums of the last minutes, oldest first. */
export const totals = signal<readonly Total[]>([]);
export let mesh = new Mesh();
/** What pods used since the page was opened. */
export const pasts = new Pasts();

export function meshPath(resource: string, of: string): string {
  return of === "" ? `${GROUP}/${resource}` : `${GROUP}/namespaces/${encodeURIComponent(of)}/${resource}`;
}

let users = 0;
let stop: AbortController | undefined;
let open = "";

/** Holds the stream open until what is given back is called. */
export function follow(): () => void {
  users += 1;
  begin();
  let left = false;
  return () => {
    if (left) return;
    left = true;
    users -= 1;
    // A page that follows takes it over.
    setTimeout(() => {
      if (users === 0) end();
    }, 3000);
  };
}

function end(): void {
  stop?.abort();
  stop = undefined;
  link.value = "off";
}

function begin(): void {
  if (stop !== undefined && open === namespace.value) return;
  stop?.abort();
  stop = new AbortController();
  if (open !== namespace.value || link.value === "off") {
    mesh = new Mesh();
    snapshot.value = NOTHING_SEEN;
    totals.value = [];
  }
  open = namespace.value;
  void run(stop, open);
}

effect(() => {
  // Another user is there.
  void session.value?.user;
  pasts.clear();
});

effect(() => {
  void namespace.value;
  if (users > 0) begin();
});

async function run(own: AbortController, of: string): Promise<void> {
  let pause = PAUSE_MILLIS_MIN;
  link.value = "connecting";
  while (!own.signal.aborted) {
    const once = new AbortController();
    const over = () => once.abort();
    own.signal.addEventListener("abort", over, { once: true });
    let silence = setTimeout(over, SILENCE_MILLIS);
    try {
      await lines(
        url(meshPath("frames", of), { watch: true }),
        (line) => {
          clearTimeout(silence);
          silence = setTimeout(over, SILENCE_MILLIS);
          const object = (JSON.parse(line) as { object?: unknown }).object;
          if (!mesh.take(object) || own.signal.aborted) return;
          pause = PAUSE_MILLIS_MIN;
          link.value = "live";
          refusal.value = "";
          if (at(object, "pods") !== undefined) pasts.push(mesh.snapshot.at, mesh.pods);
          snapshot.value = mesh.snapshot;
          totals.value = mesh.totals.last(mesh.totals.size);
        },
        { signal: once.signal },
      );
    } catch (error) {
      if (own.signal.aborted) return;
      if (error instanceof ApiError && (error.forbidden || error.code === 404)) {
        link.value = "refused";
        refusal.value = error.message;
        pause = 30_000;
      } else if (!aborted(error)) refusal.value = told(error);
    } finally {
      clearTimeout(silence);
      own.signal.removeEventListener("abort", over);
    }
    if (own.signal.aborted) return;
    if (link.value !== "refused") link.value = "cut";
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, PAUSE_MILLIS_MAX);
  }
}

/** What was, in steps: for curves, and for the replay. */
export async function history(of: string, window: string, step: string, signal?: AbortSignal): Promise<readonly unknown[]> {
  return list(await json(url(meshPath("edges", of), { window, step }), { signal }), "frames");
}
