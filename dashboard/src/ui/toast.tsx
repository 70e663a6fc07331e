/**
 * What just happened, at the edge of the page; and what is about to: a deletion waits for `UNDO_MILLIS`, in which it can be taken back.
 *
 * Invariant: nothing that was taken back is sent; who leaves the page before the time is over has taken it back.
 */

import { signal } from "@preact/signals";
import type { JSX } from "preact";

import { told } from "../kube/http";
import { Said } from "./words";

const UNDO_MILLIS = 6000;
const SHOWN_MILLIS = 6000;
const TOASTS_MAX = 5;

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly kind: "done" | "failed" | "waiting";
  readonly undo?: () => void;
}

const toasts = signal<readonly Toast[]>([]);
let last = 0;

function put(toast: Omit<Toast, "id">): number {
  last += 1;
  toasts.value = [...toasts.value, { ...toast, id: last }].slice(-TOASTS_MAX);
  return last;
}

function drop(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export function say(text: string, kind: "done" | "failed" = "done"): void {
  const id = put({ text, kind });
  // Who reads slowly has the failure until it is put away.
  if (kind === "done") setTimeout(() => drop(id), SHOWN_MILLIS);
}

/** Does something and says how it went. */
export async function doing(what: string, act: () => Promise<unknown>): Promise<boolean> {
  try {
    await act();
    say(what);
    return true;
  } catch (error) {
    say(`${what}: ${told(error)}`, "failed");
    return false;
  }
}

/** Does something a little later, unless it is taken back. */
export function soon(what: string, done: string, act: () => Promise<unknown>): void {
  const timer = setTimeout(() => {
    drop(id);
    void doing(done, act);
  }, UNDO_MILLIS);
  const id = put({
    text: `${what} in ${UNDO_MILLIS / 1000} seconds`,
    kind: "waiting",
    undo: () => {
      clearTimeout(timer);
      drop(id);
      say("Taken back");
    },
  });
}

export function Toasts(): JSX.Element {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={`toast toast-${toast.kind}`}>
          <Said text={toast.text} />
          {toast.undo === undefined ? (
            <button type="button" class="quiet" aria-label="Put away" onClick={() => drop(toast.id)}>
              &#x2715;
            </button>
          ) : (
            <button type="button" class="button" onClick={toast.undo}>
              Undo
            </button>
          )}
        </div>
      ))}
    </div>
  );
}
