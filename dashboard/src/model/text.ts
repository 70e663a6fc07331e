/**
 * Text from outside as it is shown: control characters, marks that turn the direction of writing, and what has no width are made visible.
 *
 * Invariant: what is given back has no character that changes how its neighbours look, and is no longer than `max` plus an ellipsis.
 */

/** Longest text of one cell; longer ones are cut. */
export const CELL_MAX = 2000;

// Controls but tab, soft hyphen, bidirectional marks and isolates, zero-width characters, separators, tags, and halves of pairs.
const UNSEEN = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

function shown(mark: string): string {
  const code = mark.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
}

/** One line of text, with everything in it seen. */
export function plain(text: string, max = CELL_MAX): string {
  const cut = text.length > max ? `${text.slice(0, max)}\u2026` : text;
  return cut.replace(UNSEEN, shown);
}

/** The same of text that has lines: they stay. */
export function plainLines(text: string, max = CELL_MAX * 50): string {
  const cut = text.length > max ? `${text.slice(0, max)}\u2026` : text;
  return cut.split(/\r?\n/).map((line) => line.replace(UNSEEN, shown)).join("\n");
}

// What a terminal would have taken as colours, movements, or titles.
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;

/** Text of a program for a terminal, without what only a terminal understands. */
export function withoutSequences(text: string): string {
  return text.replace(SEQUENCES, "");
}

/** Cut in its middle, so that both ends can be read: names differ at either. */
export function middle(text: string, max: number): string {
  if (text.length <= max) return text;
  const tail = Math.floor((max - 1) / 2);
  return `${text.slice(0, max - 1 - tail)}\u2026${text.slice(text.length - tail)}`;
}
