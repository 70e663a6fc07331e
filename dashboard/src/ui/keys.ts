/**
 * The keyboard: every key that the page knows, in one list that `?` shows.
 *
 * Invariants: no key is taken from somebody who writes; keys of the browser and of the system stay theirs.
 */

import { isOpen } from "./dialog";
import { go, href } from "./route";

export interface Key {
  readonly keys: string;
  readonly does: string;
  readonly group: string;
}

export const PAGES: readonly { readonly key: string; readonly page: string; readonly title: string }[] = [
  { key: "o", page: "overview", title: "Overview" },
  { key: "g", page: "traffic", title: "Traffic" },
  { key: "w", page: "workloads", title: "Workloads" },
  { key: "r", page: "rollouts", title: "Rollouts" },
  { key: "t", page: "traces", title: "Traces" },
  { key: "p", page: "tap", title: "Tap" },
  { key: "l", page: "logs", title: "Logs" },
  { key: "f", page: "faults", title: "Faults" },
  { key: "n", page: "nodes", title: "Nodes" },
  { key: "k", page: "kinds", title: "Objects" },
];

export const KEYS: readonly Key[] = [
  ...PAGES.map(({ key, title }) => ({ keys: `g ${key}`, does: title, group: "Go to" })),
  { keys: "?", does: "Show this list", group: "Everywhere" },
  { keys: "/", does: "Find on this page", group: "Everywhere" },
  { keys: ": or Ctrl-K", does: "Go anywhere by name", group: "Everywhere" },
  { keys: "n", does: "Choose the namespace", group: "Everywhere" },
  { keys: "c", does: "Create from YAML", group: "Everywhere" },
  { keys: "z", does: "Faulty ones only", group: "Lists" },
  { keys: "j k \u2193 \u2191", does: "Next, previous row", group: "Lists" },
  { keys: "Enter", does: "Open", group: "Lists" },
  { keys: "y", does: "YAML", group: "Lists" },
  { keys: "l", does: "Logs", group: "Lists" },
  { keys: "s", does: "Console", group: "Lists" },
  { keys: "u", does: "Cordon or uncordon a node", group: "Lists" },
  { keys: "Ctrl-D", does: "Delete, with time to undo", group: "Lists" },
  { keys: "Space", does: "Pause, go on", group: "Traffic, tap, logs" },
  { keys: "+ \u2212 0", does: "Closer, farther, all of it", group: "Traffic" },
  { keys: "Tab, Enter", does: "Walk nodes, open one", group: "Traffic" },
  { keys: "Escape", does: "Close, leave", group: "Everywhere" },
];

type Handler = () => void;

const handlers = new Map<string, Handler>();

/** What a key does on the page that is shown; ends with what is given back. */
export function on(key: string, act: Handler): () => void {
  handlers.set(key, act);
  return () => {
    if (handlers.get(key) === act) handlers.delete(key);
  };
}

const SEQUENCE_MILLIS = 1200;

export function startKeys(): void {
  let went = 0;
  document.addEventListener("keydown", (event) => {
    const writes = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable], .editor") !== null;
    const control = event.ctrlKey || event.metaKey;
    if (event.defaultPrevented || event.altKey || isOpen()) return;
    if (control && event.key.toLowerCase() === "k") {
      event.preventDefault();
      handlers.get(":")?.();
      return;
    }
    if (control || writes) return;
    if (went + SEQUENCE_MILLIS > event.timeStamp) {
      went = 0;
      const to = PAGES.find(({ key }) => key === event.key);
      if (to !== undefined) {
        event.preventDefault();
        go(href(to.page));
        return;
      }
    }
    if (event.key === "g") {
      went = event.timeStamp;
      return;
    }
    // A button that has the focus is pressed by it.
    if (event.key === " " && event.target instanceof HTMLButtonElement) return;
    if (event.key === "/") {
      const field = document.querySelector<HTMLInputElement>("input[data-find]");
      if (field !== null) {
        event.preventDefault();
        field.focus();
        field.select();
      }
      return;
    }
    if (event.key === "j" || event.key === "k") {
      const table = document.querySelector<HTMLElement>("main .table");
      if (table !== null) {
        table.focus();
        table.dispatchEvent(new KeyboardEvent("keydown", { key: event.key, bubbles: false }));
        event.preventDefault();
      }
      return;
    }
    const act = handlers.get(event.key);
    if (act !== undefined) {
      event.preventDefault();
      act();
    }
  });
}
