/**
 * The terminal of a console: what `model/terminal.ts` makes of a program's output, drawn; keys, text and clipboard said to the program.
 *
 * Keys go to a field that nobody sees, so that whatever writes text writes it there: keyboards of telephones, input methods, the clipboard. Ctrl-M is Enter
 * to a program, and leaves the terminal here: no key is caught for good.
 *
 * Invariants: lines are drawn when they have changed, at most once a frame; what is marked with the mouse stays marked and can be copied; the program hears of the
 * size as it changes.
 */

import { useSignal } from "@preact/signals";
import { Component, type JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { classesOf, keySaid, pasted, Terminal, type Row } from "../model/terminal";
import type { SessionProps } from "./console";
import { Exec } from "./exec";

interface LineProps {
  readonly row: Row;
  readonly version: number;
  readonly cols: number;
  readonly cursor: number;
}

class Line extends Component<LineProps> {
  override shouldComponentUpdate(next: LineProps): boolean {
    const { row, version, cols, cursor } = this.props;
    return next.row !== row || next.version !== version || next.cols !== cols || next.cursor !== cursor;
  }

  override render({ row, cursor }: LineProps): JSX.Element {
    return (
      <div class="t-line">
        {row.runs(cursor).map(({ text, style, cursor }, index) => (
          <span key={index} class={`${classesOf(style)}${cursor ? " t-cursor" : ""}`.trim() || undefined}>
            {text}
          </span>
        ))}
      </div>
    );
  }
}

/** So many letters are measured for the width of one. */
const MEASURED = 40;

export function Screen({ pod, container, words, turn, runs, ends, leave }: SessionProps & { readonly leave: () => void }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const probe = useRef<HTMLSpanElement>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const terminal = useRef(new Terminal());
  const exec = useRef<Exec | undefined>(undefined);
  const drawn = useSignal(0);
  const focused = useSignal(false);
  const open = useSignal(false);
  const follows = useRef(true);
  const frame = useRef(0);
  const draw = () => {
    if (frame.current !== 0) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      drawn.value += 1;
    });
  };
  const note = (text: string) => {
    const { x } = terminal.current;
    terminal.current.write(`\u001b[0m${x > 0 ? "\r\n" : ""}\u001b[2m${text}\u001b[0m\r\n`);
    draw();
  };
  const fit = () => {
    const [element, letters] = [box.current, probe.current];
    if (element === null || letters === null) return;
    const { width, height } = letters.getBoundingClientRect();
    if (width === 0 || height === 0) return;
    const style = getComputedStyle(element);
    const inner = (one: string, other: string, all: number) => all - Number.parseFloat(one) - Number.parseFloat(other);
    const cols = Math.floor(inner(style.paddingLeft, style.paddingRight, element.clientWidth) / (width / MEASURED));
    const rows = Math.floor(inner(style.paddingTop, style.paddingBottom, element.clientHeight) / height);
    const own = terminal.current;
    const [before, high] = [own.cols, own.rows];
    own.resize(cols, rows);
    if (own.cols === before && own.rows === high) return;
    exec.current?.size(own.cols, own.rows);
    draw();
  };
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    fit();
    const resized = new ResizeObserver(fit);
    resized.observe(element);
    return () => {
      resized.disconnect();
      cancelAnimationFrame(frame.current);
    };
  }, []);
  useEffect(() => {
    if (turn === 0) return undefined;
    runs(true);
    const fresh = new Terminal(terminal.current.cols, terminal.current.rows);
    terminal.current = fresh;
    follows.current = true;
    const own = new Exec(
      pod,
      { container, words, terminal: true },
      {
        open: () => own.size(fresh.cols, fresh.rows),
        said: (text) => {
          const answers = fresh.write(text);
          if (answers !== "") own.say(answers);
          draw();
        },
        over: (how) => {
          open.value = false;
          if (terminal.current === fresh) note(how);
          runs(false);
        },
      },
    );
    exec.current = own;
    open.value = true;
    // At once, so that no key that is meant for it is taken for one of the page.
    field.current?.focus({ preventScroll: true });
    ends(() => own.close());
    draw();
    return () => own.close();
  }, [turn]);
  useLayoutEffect(() => {
    const element = box.current;
    if (element !== null && follows.current) element.scrollTop = element.scrollHeight;
  }, [drawn.value]);
  const press = (event: KeyboardEvent) => {
    event.stopPropagation();
    if (event.isComposing) return;
    const control = event.ctrlKey && !event.altKey && !event.metaKey;
    const letter = event.key.toLowerCase();
    if (control && letter === "m") {
      event.preventDefault();
      leave();
      return;
    }
    // What is marked is copied; what is pasted comes as text.
    if ((control || event.metaKey) && letter === "c") {
      const marked = document.getSelection()?.toString() ?? "";
      if (marked !== "") {
        event.preventDefault();
        void navigator.clipboard?.writeText(marked).catch(() => undefined);
        document.getSelection()?.removeAllRanges();
        return;
      }
      if (event.shiftKey || event.metaKey) return;
    }
    if (((control || event.metaKey) && letter === "v") || event.metaKey) return;
    if (event.shiftKey && (event.key === "PageUp" || event.key === "PageDown")) {
      event.preventDefault();
      box.current?.scrollBy({ top: (event.key === "PageUp" ? -0.9 : 0.9) * (box.current?.clientHeight ?? 0) });
      return;
    }
    // Nobody is there to hear it: keys are the browser's.
    if (!open.value) return;
    const said = keySaid(event, terminal.current.arrowsOfPrograms);
    if (said === undefined) return;
    event.preventDefault();
    follows.current = true;
    exec.current?.say(said);
  };
  const own = terminal.current;
  void drawn.value;
  const cursor = (at: number) => (open.value && own.cursorShown && at === own.y ? own.x : -1);
  return (
    <>
      <div
        ref={box}
        class={`console terminal${focused.value ? " is-focused" : ""}`}
        role="region"
        aria-label="Terminal"
        tabIndex={-1}
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          follows.current = scrollTop + clientHeight >= scrollHeight - 4;
        }}
        onMouseUp={() => {
          if (document.getSelection()?.isCollapsed ?? true) field.current?.focus({ preventScroll: true });
        }}
      >
        <span ref={probe} class="t-probe" aria-hidden="true">
          {"M".repeat(MEASURED)}
        </span>
        <div class="t-lines">
          {own.past.map((row) => (
            <Line key={row.id} row={row} version={row.version} cols={own.cols} cursor={-1} />
          ))}
          {own.screen.map((row, index) => (
            <Line key={row.id} row={row} version={row.version} cols={own.cols} cursor={cursor(index)} />
          ))}
        </div>
        <textarea
          ref={field}
          class="t-field"
          aria-label="Keys for the terminal; Ctrl-M leaves it"
          autocapitalize="off"
          autocomplete="off"
          spellcheck={false}
          rows={1}
          onFocus={() => (focused.value = true)}
          onBlur={() => (focused.value = false)}
          onKeyDown={press}
          onPaste={(event) => {
            event.preventDefault();
            exec.current?.say(pasted(event.clipboardData?.getData("text/plain") ?? "", own.marksPasted));
          }}
          onInput={(event) => {
            if (event.isComposing) return;
            exec.current?.say(event.currentTarget.value.replace(/\n/g, "\r"));
            event.currentTarget.value = "";
          }}
          onCompositionEnd={(event) => {
            exec.current?.say(event.currentTarget.value);
            event.currentTarget.value = "";
          }}
        />
      </div>
      <p class="muted">
        {open.value ? `${own.cols} \u00d7 ${own.rows}. ` : ""}Mark and Ctrl-C copies, Ctrl-V pastes, Shift-PageUp looks back, Ctrl-M leaves the terminal; <em>Plain</em> is easier to hear read aloud.
      </p>
    </>
  );
}
