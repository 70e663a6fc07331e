/**
 * A console into a container: what it says above, a line to say below. No terminal is played: a shell without one says what it has to say.
 *
 * Invariants: the session ends with the page; the last `KEPT_CHARACTERS` are kept; nothing that is said can do more than be shown.
 */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { action, refusedBecause } from "../kube/access";
import { list, text, type Item } from "../kube/read";
import { pathOf, PODS } from "../kube/resource";
import { closing, ended, ERROR, frame, PROTOCOLS, STDERR, STDIN, STDOUT } from "../model/channels";
import { plainLines, withoutSequences } from "../model/text";
import { Said } from "./words";

const KEPT_CHARACTERS = 200_000;
const HISTORY_MAX = 100;

interface Piece {
  readonly from: "in" | "out" | "err" | "note";
  readonly text: string;
}

export function Console({ pod }: { pod: Item }): JSX.Element {
  const containers = list(pod, "spec", "containers").map((one) => text(one, "name"));
  const container = useSignal(containers[0] ?? "");
  const command = useSignal("sh");
  const line = useSignal("");
  const said = useSignal<readonly Piece[]>([]);
  const open = useSignal(false);
  const socket = useRef<WebSocket | undefined>(undefined);
  const before = useRef<{ lines: string[]; at: number }>({ lines: [], at: 0 });
  const box = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const why = refusedBecause(action("create", PODS, pod.metadata.namespace, pod.metadata.name, "exec"));
  const put = (from: Piece["from"], text: string) => {
    const all = [...said.value, { from, text }];
    let size = all.reduce((sum, piece) => sum + piece.text.length, 0);
    while (size > KEPT_CHARACTERS && all.length > 1) size -= all.shift()?.text.length ?? 0;
    said.value = all;
  };
  const start = () => {
    const words = command.value.trim().split(/\s+/).filter(Boolean);
    if (words.length === 0) return;
    const query = new URLSearchParams({ container: container.value, stdin: "true", stdout: "true", stderr: "true", tty: "false" });
    for (const word of words) query.append("command", word);
    const made = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${pathOf(PODS, pod, "exec")}?${query.toString()}`, [...PROTOCOLS]);
    made.binaryType = "arraybuffer";
    socket.current = made;
    const decoders = { [STDOUT]: new TextDecoder(), [STDERR]: new TextDecoder() };
    made.onopen = () => {
      open.value = true;
      put("note", `${words.join(" ")} in ${container.value}\n`);
      field.current?.focus();
    };
    made.onmessage = (event: MessageEvent<ArrayBuffer | string>) => {
      if (typeof event.data === "string") return;
      const bytes = new Uint8Array(event.data);
      const channel = bytes[0];
      const rest = bytes.subarray(1);
      if (channel === STDOUT || channel === STDERR) {
        const text = decoders[channel]?.decode(rest, { stream: true }) ?? "";
        if (text !== "") put(channel === STDOUT ? "out" : "err", withoutSequences(text));
      } else if (channel === ERROR) {
        const end = ended(new TextDecoder().decode(rest));
        put("note", end.ok ? "it ended\n" : end.code > 0 ? `it ended with code ${end.code}\n` : `${end.message}\n`);
      }
    };
    made.onclose = (event) => {
      if (!open.value) put("note", event.reason === "" ? "the console was refused, or the server cannot be reached\n" : `${event.reason}\n`);
      open.value = false;
    };
  };
  useEffect(() => () => socket.current?.close(), []);
  useLayoutEffect(() => {
    if (box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [said.value]);
  const speak = () => {
    if (socket.current?.readyState !== WebSocket.OPEN) return;
    socket.current.send(frame(STDIN, `${line.value}\n`));
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
    } else if (event.ctrlKey && event.key === "d" && line.value === "") socket.current?.send(closing(STDIN));
    else return;
    event.preventDefault();
  };
  return (
    <div class="console-page">
      <div class="tools">
        <label>
          <span>Container</span>
          <select value={container.value} disabled={open.value} onChange={(event) => (container.value = event.currentTarget.value)}>
            {containers.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label>
          <span>Command</span>
          <input value={command.value} disabled={open.value} spellcheck={false} onInput={(event) => (command.value = event.currentTarget.value)} />
        </label>
        {open.value ? (
          <button type="button" class="button" onClick={() => socket.current?.close()}>
            End
          </button>
        ) : (
          <button type="button" class="button button-primary" disabled={why !== ""} title={why || undefined} onClick={start}>
            Start
          </button>
        )}
        {why === "" ? null : <span class="note">{why}</span>}
      </div>
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
        A shell of <Said text={container.value} />, without a terminal; Ctrl-D on an empty line ends what it reads.
      </p>
    </div>
  );
}
