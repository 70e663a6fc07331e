/** One dialog at a time, above the page: the browser's own, so that focus stays inside of it and Escape ends it. */

import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

interface Open {
  readonly title: string;
  readonly content: () => ComponentChildren;
  readonly wide: boolean;
}

const open = signal<Open | undefined>(undefined);

export function show(title: string, content: () => ComponentChildren, wide = false): void {
  open.value = { title, content, wide };
}

export function close(): void {
  open.value = undefined;
}

export function isOpen(): boolean {
  return open.peek() !== undefined;
}

export function Dialog(): JSX.Element | null {
  const shown = open.value;
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current;
    if (dialog !== null && !dialog.open) dialog.showModal();
  }, [shown]);
  if (shown === undefined) return null;
  return (
    <dialog
      ref={element}
      class={shown.wide ? "dialog dialog-wide" : "dialog"}
      aria-label={shown.title}
      onClose={close}
      onClick={(event) => {
        if (event.target === element.current) close();
      }}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2>{shown.title}</h2>
          <button type="button" class="quiet" aria-label="Close" onClick={close}>
            &#x2715;
          </button>
        </header>
        {shown.content()}
      </div>
    </dialog>
  );
}

/** Asks before something that cannot be taken back. */
export function confirm(title: string, why: string, word: string, act: () => void): void {
  show(title, () => (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        close();
        act();
      }}
    >
      <p>{why}</p>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>
          Leave it
        </button>
        <button type="submit" class="button button-danger">
          {word}
        </button>
      </div>
    </form>
  ));
}
