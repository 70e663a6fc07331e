/**
 * A console into a container. On a terminal, as programs expect it that draw their own screen; or plain, what it says above and a line to say
 * below, which is read aloud as it comes and needs no keys but those of a form.
 *
 * Invariants: the session ends with the page; the last `KEPT_CHARACTERS` of a plain one are kept; nothing that is said can do more than be shown.
 */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { action, refusedBecause } from "../kube/access";
import { list, text, type Item } from "../kube/read";
import { PODS } from "../kube/resource";
import { plainLines, withoutSequences } from "../model/text";
import { Exec } from "./exec";
import { Screen } from "./screen";
import { Said } from "./words";

const KEPT_CHARACTERS = 200_000;
const HISTORY_MAX = 100;
const REMEMBERED = "weft.console";

type Mode = "terminal" | "plain";

interface Piece {
  readonly from: "in" | "out" | "err" | "note";
  readonly text: string;
}

function remembered(): Mode {
  try {
    return localStorage.getItem(REMEMBERED) === "plain" ? "plain" : "terminal";
  } catch {
    return "terminal";
  }
}

export function Console({ pod }: { pod: Item }): JSX.Element {
  // Those that were added to look into it, too.
  const containers = [...list(pod, "spec", "containers"), ...list(pod, "spec", "ephemeralContainers")].map((one) => text(one, "name"));
  const container = useSignal(containers[0] ?? "");
  const command = useSignal("sh");
  const mode = useSignal<Mode>(remembered());
  /** Counts sessions; 0 before the first. */
  const turn = useSignal(0);
  const runs = useSignal(false);
  const why = refusedBecause(action("create", PODS, pod.metadata.namespace, pod.metadata.name, "exec"));
  const words = command.value.trim().split(/\s+/).filter(Boolean);
  const end = useRef<() => void>(() => undefined);
  const leave = useRef<HTMLButtonElement>(null);
  const choose = (to: Mode) => {
    // The other one begins when it is asked to.
    turn.value = 0;
    mode.value = to;
    try {
      localStorage.setItem(REMEMBERED, to);
    } catch {
      // Then it is asked for anew.
    }
  };
  const session: SessionProps = {
    pod,
    container: container.value,
    words: words.length === 0 ? ["sh"] : words,
    turn: turn.value,
    runs: (now) => (runs.value = now),
    ends: (how) => (end.current = how),
  };
  return (
    <div class="console-page">
      <div class="tools">
        <label>
          <span>Container</span>
          <select value={container.value} disabled={runs.value} onChange={(event) => (container.value = event.currentTarget.value)}>
            {containers.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label>
          <span>Command</span>
          <input value={command.value} disabled={runs.value} spellcheck={false} autocapitalize="off" onInput={(event) => (command.value = event.currentTarget.value)} />
        </label>
        <div class="choice" role="group" aria-label="Console is">
          {(
            [
              ["terminal", "Terminal"],
              ["plain", "Plain"],
            ] as const
          ).map(([id, title]) => (
            <button key={id} type="button" aria-pressed={mode.value === id} disabled={runs.value} onClick={() => choose(id)}>
              {title}
            </button>
          ))}
        </div>
        {runs.value ? (
          <button key="end" ref={leave} type="button" class="button" onClick={() => end.current()}>
            End
          </button>
        ) : (
          <button key="start" type="button" class="button button-primary" disabled={why !== ""} title={why || undefined} onClick={() => (turn.value += 1)}>
            Start
          </button>
        )}
        {why === "" ? null : <span class="note">{why}</span>}
      </div>
      {mode.value === "terminal" ? <Screen key="terminal" {...session} leave={() => leave.current?.focus()} /> : <Plain key="plain" {...session} />}
    </div>
  );
}

export interface SessionProps {
  readonly pod: Item;
  readonly container: string;
  readonly words: readonly string[];
  /** A session begins when it is counted up. */
  readonly turn: number;
  readonly runs: (now: boolean) => void;
  /** Takes what ends it. */
  readonly ends: (how: () => void) => void;
}

function Plain({ pod, container, words, turn, runs, ends }: SessionProps): JSX.Element {
  const line = useSignal("");
  const said = useSignal<readonly Piece[]>([]);
  const open = useSignal(false);
  const exec = useRef<Exec | undefined>(undefined);
  const before = useRef<{ lines: string[]; at: number }>({ lines: [], at: 0 });
  const box = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const put = (from: Piece["from"], text: string) => {
    const all = [...said.value, { from, text }];
    let size = all.reduce((sum, piece) => sum + piece.text.length, 0);
    while (size > KEPT_CHARACTERS && all.length > 1) size -= all.shift()?.text.length ?? 0;
    said.value = all;
  };
  useEffect(() => {
    if (turn === 0) return undefined;
    runs(true);
    const own = new Exec(
      pod,
      { container, words, terminal: false },
      {
        open: () => {
          open.value = true;
          put("note", `${words.join(" ")} in ${container}\n`);
          field.current?.focus();
        },
        said: (text, from) => put(from, withoutSequences(text)),
        over: (how) => {
          open.value = false;
          put("note", `${how}\n`);
          runs(false);
        },
      },
    );
    exec.current = own;
    ends(() => own.close());
    return () => own.close();
  }, [turn]);
  useLayoutEffect(() => {
    if (box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [said.value]);
  const speak = () => {
    if (exec.current?.say(`${line.value}\n`) !== true) return;
    put("in", `${line.value}\n`);
    const known = before.current;
    known.lines = [...known.lines, line.value].slice(-HISTORY_MAX);
    known.at = known.lines.length;
    line.value = "";
  };
  const press = (event: KeyboardEvent) => {
    const known = before.current;
    if (event.key === "Enter") speak();
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      known.at = Math.max(0, Math.min(known.lines.length, known.at + (event.key === "ArrowUp" ? -1 : 1)));
      line.value = known.lines[known.at] ?? "";
    } else if (event.ctrlKey && event.key === "d" && line.value === "") exec.current?.finish();
    else return;
    event.preventDefault();
  };
  return (
    <>
      <div ref={box} class="console" role="log" aria-label="What it says" tabIndex={0}>
        <pre>
          {said.value.map((piece, index) => (
            <span key={index} class={`from-${piece.from}`}>
              {piece.from === "in" ? "$ " : ""}
              {plainLines(piece.text)}
            </span>
          ))}
        </pre>
      </div>
      <label class="console-line">
        <span aria-hidden="true">$</span>
        <span class="sr">A line to say</span>
        <input ref={field} value={line.value} disabled={!open.value} spellcheck={false} autocomplete="off" autocapitalize="off" placeholder={open.value ? "" : "start it first"} onInput={(event) => (line.value = event.currentTarget.value)} onKeyDown={press} />
      </label>
      <p class="muted">
        A shell of <Said text={container} />, without a terminal; Ctrl-D on an empty line ends what it reads.
      </p>
    </>
  );
}
