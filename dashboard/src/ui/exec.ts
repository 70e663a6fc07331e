/**
 * A command that runs in a container, over one WebSocket: what it says, what is said to it, how large its terminal is, how it ends.
 *
 * Invariants: it is ended by whoever began it; of what it says nothing is kept here, of what is said to it before it is open at most
 * `WAITING_MAX` pieces.
 */

import { url } from "../kube/http";
import type { Item } from "../kube/read";
import { pathOf, PODS } from "../kube/resource";
import { closing, ended, ERROR, frame, PROTOCOLS, RESIZE, STDERR, STDIN, STDOUT } from "../model/channels";

/** Keys of somebody who types faster than a connection is made. */
const WAITING_MAX = 200;

export interface Command {
  readonly container: string;
  readonly words: readonly string[];
  readonly terminal: boolean;
}

export interface Heard {
  readonly open: () => void;
  readonly said: (text: string, from: "out" | "err") => void;
  /** How it ended, as a sentence; or why it did not begin. */
  readonly over: (how: string) => void;
}

export class Exec {
  readonly #socket: WebSocket;
  #open = false;
  #how = "";
  #waiting: Uint8Array<ArrayBuffer>[] = [];

  constructor(pod: Item, command: Command, heard: Heard) {
    const { container, words, terminal } = command;
    // One stream where a terminal shows both.
    const path = url(pathOf(PODS, pod, "exec"), { container, stdin: true, stdout: true, stderr: !terminal, tty: terminal });
    const asked = words.map((word) => `&command=${encodeURIComponent(word)}`).join("");
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${path}${asked}`, [...PROTOCOLS]);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const decoders = { [STDOUT]: new TextDecoder(), [STDERR]: new TextDecoder() };
    socket.onopen = () => {
      this.#open = true;
      heard.open();
      for (const bytes of this.#waiting) socket.send(bytes);
      this.#waiting = [];
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer | string>) => {
      if (typeof event.data === "string") return;
      const bytes = new Uint8Array(event.data);
      const channel = bytes[0];
      const rest = bytes.subarray(1);
      if (channel === STDOUT || channel === STDERR) {
        const text = decoders[channel]?.decode(rest, { stream: true }) ?? "";
        if (text !== "") heard.said(text, channel === STDOUT ? "out" : "err");
      } else if (channel === ERROR) {
        const end = ended(new TextDecoder().decode(rest));
        this.#how = end.ok ? "it ended" : end.code > 0 ? `it ended with code ${end.code}` : end.message;
      }
    };
    socket.onclose = (event) => {
      heard.over(this.#how || event.reason || (this.#open ? "the connection is cut" : "the console was refused, or the server cannot be reached"));
      this.#open = false;
    };
  }

  #send(bytes: Uint8Array<ArrayBuffer>): boolean {
    const { readyState } = this.#socket;
    if (readyState === WebSocket.CONNECTING && this.#waiting.length < WAITING_MAX) this.#waiting.push(bytes);
    else if (readyState === WebSocket.OPEN) this.#socket.send(bytes);
    else return false;
    return true;
  }

  /** Says whether it could be said. */
  say(text: string): boolean {
    return this.#send(frame(STDIN, text));
  }

  /** There is no more to be said. */
  finish(): void {
    this.#send(closing(STDIN));
  }

  size(cols: number, rows: number): void {
    this.#send(frame(RESIZE, JSON.stringify({ Width: cols, Height: rows })));
  }

  close(): void {
    this.#socket.close();
  }
}
