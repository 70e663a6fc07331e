/**
 * What differs between two texts, line by line, by the shortest way (Myers, "An O(ND) Difference Algorithm", 1986).
 *
 * Invariants: what is kept and removed makes up the old text, what is kept and added the new one. Texts that differ in more than
 * `DIFFERENCES_MAX` lines are told of as one block taken out and one put in, so that time and memory are bounded.
 */

export type Change = "same" | "removed" | "added";

export interface Line {
  readonly change: Change;
  readonly text: string;
  /** Numbers from 1 in the old and the new text, 0 where it is not there. */
  readonly old: number;
  readonly new: number;
}

const DIFFERENCES_MAX = 1500;

export function diff(before: string, after: string): Line[] {
  const old = before.split("\n");
  const fresh = after.split("\n");
  let head = 0;
  while (head < old.length && head < fresh.length && old[head] === fresh[head]) head += 1;
  let tail = 0;
  while (tail < old.length - head && tail < fresh.length - head && old[old.length - 1 - tail] === fresh[fresh.length - 1 - tail]) tail += 1;
  const lines: Line[] = [];
  let oldAt = 0;
  let newAt = 0;
  const same = () => {
    lines.push({ change: "same", text: old[oldAt] ?? "", old: oldAt + 1, new: newAt + 1 });
    oldAt += 1;
    newAt += 1;
  };
  const removed = () => {
    lines.push({ change: "removed", text: old[oldAt] ?? "", old: oldAt + 1, new: 0 });
    oldAt += 1;
  };
  const added = () => {
    lines.push({ change: "added", text: fresh[newAt] ?? "", old: 0, new: newAt + 1 });
    newAt += 1;
  };
  for (let step = 0; step < head; step += 1) same();
  const script = shortest(old.slice(head, old.length - tail), fresh.slice(head, fresh.length - tail));
  for (const change of script) ({ same, removed, added })[change]();
  for (let step = 0; step < tail; step += 1) same();
  return lines;
}

function shortest(old: readonly string[], fresh: readonly string[]): Change[] {
  const [rows, columns] = [old.length, fresh.length];
  const whole: Change[] = [...old.map((): Change => "removed"), ...fresh.map((): Change => "added")];
  if (rows === 0 || columns === 0) return whole;
  const most = Math.min(rows + columns, DIFFERENCES_MAX);
  const middle = most + 1;
  // Farthest row reached on each diagonal, and how that was after each number of differences.
  const reached = new Int32Array(2 * most + 3);
  const trace: Int32Array[] = [];
  for (let differences = 0; differences <= most; differences += 1) {
    trace.push(reached.slice());
    for (let diagonal = -differences; diagonal <= differences; diagonal += 2) {
      const below = reached[middle + diagonal + 1] ?? 0;
      const beside = reached[middle + diagonal - 1] ?? 0;
      let row = diagonal === -differences || (diagonal !== differences && beside < below) ? below : beside + 1;
      let column = row - diagonal;
      while (row < rows && column < columns && old[row] === fresh[column]) {
        row += 1;
        column += 1;
      }
      reached[middle + diagonal] = row;
      if (row >= rows && column >= columns) return walkBack(trace, middle, rows, columns);
    }
  }
  return whole;
}

function walkBack(trace: readonly Int32Array[], middle: number, rows: number, columns: number): Change[] {
  const script: Change[] = [];
  let [row, column] = [rows, columns];
  for (let differences = trace.length - 1; differences >= 0; differences -= 1) {
    const reached = trace[differences] as Int32Array;
    const diagonal = row - column;
    const below = reached[middle + diagonal + 1] ?? 0;
    const beside = reached[middle + diagonal - 1] ?? 0;
    const down = diagonal === -differences || (diagonal !== differences && beside < below);
    const fromDiagonal = down ? diagonal + 1 : diagonal - 1;
    const fromRow = reached[middle + fromDiagonal] ?? 0;
    const fromColumn = fromRow - fromDiagonal;
    while (row > fromRow && column > fromColumn) {
      script.push("same");
      row -= 1;
      column -= 1;
    }
    if (differences > 0) script.push(down ? "added" : "removed");
    [row, column] = [fromRow, fromColumn];
  }
  return script.reverse();
}

/** A stretch of lines that are shown, and how many before it are not. */
export interface Hunk {
  readonly skipped: number;
  readonly lines: readonly Line[];
}

/** Only what changed, with so many lines around it. */
export function hunks(lines: readonly Line[], context = 3): Hunk[] {
  const shown = new Array<boolean>(lines.length).fill(false);
  lines.forEach((line, index) => {
    if (line.change === "same") return;
    for (let near = Math.max(0, index - context); near <= Math.min(lines.length - 1, index + context); near += 1) shown[near] = true;
  });
  const found: Hunk[] = [];
  let skipped = 0;
  let open: Line[] = [];
  lines.forEach((line, index) => {
    if (shown[index]) {
      open.push(line);
      return;
    }
    if (open.length > 0) {
      found.push({ skipped, lines: open });
      open = [];
      skipped = 0;
    }
    skipped += 1;
  });
  if (open.length > 0) found.push({ skipped, lines: open });
  return found;
}
