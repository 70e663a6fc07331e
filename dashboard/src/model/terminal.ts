/**
 * What a program for a terminal has written, as the screen that it means: lines of cells, a cursor, colours, and what went off the top.
 *
 * Understands what programs for `xterm` say most: movements, erasing, inserting and deleting, a scrolled region, the other screen,
 * colours and styles. What it does not know is passed over whole.
 *
 * Invariants: pure; whatever is written, the screen is `rows` lines of `cols` cells, at most `PAST_MAX` lines are kept above it, and the time for a
 * text is bounded by its length; no cell holds a character that has no width or turns the direction of writing; of a colour only the nearest of
 * sixteen is kept, which are the page's own and can be read in each scheme.
 */

export const COLS_MAX = 400;
export const ROWS_MAX = 200;
export const PAST_MAX = 1000;
const PARAMETERS_MAX = 16;
const PARAMETER_MAX = 9999;
/** Marks that are put on one letter. */
const MARKS_MAX = 4;
const TAB = 8;

// Styles are bits: colours of the letter and of its ground, 0 for the usual one and 1 to 16 else, then what else there is.
const INK = 0;
const GROUND = 5;
const BOLD = 1 << 10;
const FAINT = 1 << 11;
const ITALIC = 1 << 12;
const UNDERLINED = 1 << 13;
const TURNED = 1 << 14;

/** Names of classes that a style is drawn with. */
export function classesOf(style: number): string {
  if (style === 0) return "";
  let ink = (style >> INK) & 31;
  let ground = (style >> GROUND) & 31;
  const names: string[] = [];
  if ((style & TURNED) !== 0) {
    if (ink === 0 && ground === 0) names.push("t-turned");
    [ink, ground] = [ground, ink];
  }
  if (ink > 0) names.push(`t-ink-${ink - 1}`);
  if (ground > 0) names.push(`t-ground-${ground - 1}`);
  if ((style & BOLD) !== 0) names.push("t-bold");
  if ((style & FAINT) !== 0) names.push("t-faint");
  if ((style & ITALIC) !== 0) names.push("t-italic");
  if ((style & UNDERLINED) !== 0) names.push("t-underlined");
  return names.join(" ");
}

/** The sixteen colours as terminals have them: only to find the nearest one. */
const SIXTEEN: readonly (readonly [number, number, number])[] = [
  [0, 0, 0], [205, 0, 0], [0, 205, 0], [205, 205, 0], [0, 0, 238], [205, 0, 205], [0, 205, 205], [229, 229, 229],
  [127, 127, 127], [255, 0, 0], [0, 255, 0], [255, 255, 0], [92, 92, 255], [255, 0, 255], [0, 255, 255], [255, 255, 255],
];

function nearest(red: number, green: number, blue: number): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  SIXTEEN.forEach(([r, g, b], index) => {
    const away = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
    if (away < least) [least, best] = [away, index];
  });
  return best;
}

/** Of 256: sixteen, a cube of six, and greys. */
function indexed(colour: number): number {
  if (colour < 16) return colour;
  if (colour >= 232) {
    const grey = 8 + (colour - 232) * 10;
    return nearest(grey, grey, grey);
  }
  const level = (value: number) => (value === 0 ? 0 : 55 + value * 40);
  const cube = colour - 16;
  return nearest(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

// As in `text.ts`: what cannot be seen, or changes how its neighbours look.
const UNSEEN = /[\u0080-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/u;
const MARK = /\p{M}/u;
const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;

/** A piece of a line that looks the same. */
export interface Run {
  readonly text: string;
  readonly style: number;
  /** Whether it is the cursor's cell. */
  readonly cursor: boolean;
}

let made = 0;

/** A line, which tells whoever draws it whether it has changed. */
export class Row {
  /** Empty where the letter before is two cells wide. */
  readonly cells: string[];
  readonly styles: number[];
  /** Its own, among all lines. */
  readonly id = (made += 1);
  version = 0;

  constructor(cols: number, style = 0) {
    this.cells = new Array<string>(cols).fill(" ");
    this.styles = new Array<number>(cols).fill(style);
  }

  put(at: number, cell: string, style: number): void {
    this.cells[at] = cell;
    this.styles[at] = style;
    this.version += 1;
  }

  blank(from: number, to: number, style: number): void {
    for (let at = Math.max(0, from); at < Math.min(to, this.cells.length); at += 1) this.put(at, " ", style);
  }

  fit(cols: number): void {
    this.cells.length = Math.min(cols, this.cells.length);
    this.styles.length = this.cells.length;
    while (this.cells.length < cols) {
      this.cells.push(" ");
      this.styles.push(0);
    }
    this.version += 1;
  }

  text(): string {
    return this.cells.join("").replace(/ +$/, "");
  }

  /** Blanks at the end that look as usual are left out; a cursor at a place makes that a piece of its own. */
  runs(place = -1): Run[] {
    const cursor = this.cells[place] === "" ? place - 1 : place;
    let end = this.cells.length;
    while (end > 0 && end - 1 > cursor && this.cells[end - 1] === " " && this.styles[end - 1] === 0) end -= 1;
    const runs: { text: string; style: number; cursor: boolean }[] = [];
    for (let at = 0; at < end; at += 1) {
      const [cell, style] = [this.cells[at] ?? " ", this.styles[at] ?? 0];
      const last = runs[runs.length - 1];
      const here = at === cursor;
      // What belongs to a letter that is two cells wide is none by itself.
      if (last !== undefined && (cell === "" || (last.style === style && !here && !last.cursor))) last.text += cell;
      else runs.push({ text: cell, style, cursor: here });
    }
    return runs;
  }
}

interface Kept {
  x: number;
  y: number;
  style: number;
}

type State = "text" | "escape" | "control" | "string" | "string-escape" | "charset";

export class Terminal {
  cols: number;
  rows: number;
  /** What went off the top, oldest first. */
  readonly past: Row[] = [];
  x = 0;
  y = 0;
  cursorShown = true;
  /** Arrows are said in the way that programs ask for which draw the whole screen. */
  arrowsOfPrograms = false;
  /** What is pasted is to be marked. */
  marksPasted = false;
  #screen: Row[];
  #other: Row[] | undefined;
  #style = 0;
  #top = 0;
  #bottom: number;
  #wraps = true;
  /** The last cell is written: the next letter goes to the next line. */
  #full = false;
  #kept: Kept = { x: 0, y: 0, style: 0 };
  #keptOfMain: Kept = { x: 0, y: 0, style: 0 };
  #state: State = "text";
  #parameters = "";
  #answers = "";

  constructor(cols = 80, rows = 24) {
    this.cols = Math.max(2, Math.min(COLS_MAX, cols));
    this.rows = Math.max(2, Math.min(ROWS_MAX, rows));
    this.#bottom = this.rows - 1;
    this.#screen = Array.from({ length: this.rows }, () => new Row(this.cols));
  }

  get screen(): readonly Row[] {
    return this.#screen;
  }

  /** All that can be seen, as text. */
  text(): string {
    return [...(this.#other === undefined ? this.past : []), ...this.#screen].map((row) => row.text()).join("\n").replace(/\n+$/, "");
  }

  /** Takes up what was written, and gives what the terminal is to answer. */
  write(text: string): string {
    for (const letter of text) this.#take(letter);
    const answers = this.#answers;
    this.#answers = "";
    return answers;
  }

  resize(cols: number, rows: number): void {
    const [wide, high] = [Math.max(2, Math.min(COLS_MAX, Math.floor(cols))), Math.max(2, Math.min(ROWS_MAX, Math.floor(rows)))];
    if (wide === this.cols && high === this.rows) return;
    this.cols = wide;
    for (const row of [...this.past, ...this.#screen, ...(this.#other ?? [])]) row.fit(wide);
    // Lines that are written stay at the cursor's side.
    while (this.#screen.length > high) {
      if (this.y < this.#screen.length - 1) this.#screen.pop();
      else {
        const gone = this.#screen.shift();
        if (gone !== undefined && this.#other === undefined) this.#keep(gone);
        this.y -= 1;
      }
    }
    while (this.#screen.length < high) this.#screen.push(new Row(wide));
    if (this.#other !== undefined) {
      this.#other.length = Math.min(high, this.#other.length);
      while (this.#other.length < high) this.#other.push(new Row(wide));
    }
    this.rows = high;
    [this.#top, this.#bottom] = [0, high - 1];
    this.#move(this.x, this.y);
  }

  #take(letter: string): void {
    const code = letter.codePointAt(0) ?? 0;
    switch (this.#state) {
      case "string":
        // A title, or what else has no place here.
        if (code === 0x07) this.#state = "text";
        else if (code === 0x1b) this.#state = "string-escape";
        return;
      case "string-escape":
        this.#state = letter === "\\" ? "text" : "string";
        return;
      case "charset":
        this.#state = "text";
        return;
      case "escape":
        this.#state = "text";
        this.#escape(letter);
        return;
      case "control":
        if (code >= 0x40 && code <= 0x7e) {
          this.#state = "text";
          this.#control(letter);
        } else if (code === 0x1b) this.#state = "escape";
        else if (code >= 0x20) this.#parameters = this.#parameters.length < PARAMETERS_MAX * 5 ? this.#parameters + letter : this.#parameters;
        else this.#single(code);
        return;
      default:
        if (code < 0x20 || code === 0x7f) this.#single(code);
        else this.#letter(letter);
    }
  }

  #single(code: number): void {
    if (code === 0x1b) this.#state = "escape";
    else if (code === 0x0d) this.#move(0, this.y);
    else if (code === 0x0a || code === 0x0b || code === 0x0c) this.#down();
    else if (code === 0x08) this.#move(this.x - 1, this.y);
    else if (code === 0x09) this.#move((Math.floor(this.x / TAB) + 1) * TAB, this.y);
  }

  #letter(said: string): void {
    const letter = UNSEEN.test(said) ? "\ufffd" : said;
    if (MARK.test(letter)) {
      const row = this.#screen[this.y];
      let at = this.#full ? this.x : this.x - 1;
      if (row !== undefined && row.cells[at] === "") at -= 1;
      const before = row?.cells[at];
      if (row !== undefined && before !== undefined && before !== " " && [...before].length <= MARKS_MAX) row.put(at, before + letter, row.styles[at] ?? 0);
      return;
    }
    const width = WIDE.test(letter) ? 2 : 1;
    if (this.#full || this.x + width > this.cols) {
      if (this.#wraps) {
        this.#move(0, this.y);
        this.#down();
      } else this.x = this.cols - width;
      this.#full = false;
    }
    const row = this.#screen[this.y];
    if (row === undefined) return;
    // Half of a wide letter is none.
    if (row.cells[this.x] === "" && this.x > 0) row.put(this.x - 1, " ", row.styles[this.x - 1] ?? 0);
    if (row.cells[this.x + width] === "") row.put(this.x + width, " ", row.styles[this.x + width] ?? 0);
    row.put(this.x, letter, this.#style);
    if (width === 2) row.put(this.x + 1, "", this.#style);
    if (this.x + width >= this.cols) {
      this.x = this.cols - 1;
      this.#full = true;
    } else this.x += width;
  }

  #move(x: number, y: number): void {
    this.x = Math.max(0, Math.min(this.cols - 1, x));
    this.y = Math.max(0, Math.min(this.rows - 1, y));
    this.#full = false;
  }

  #down(): void {
    this.#full = false;
    if (this.y === this.#bottom) this.#scroll(1);
    else if (this.y < this.rows - 1) this.y += 1;
  }

  #keep(row: Row): void {
    this.past.push(row);
    if (this.past.length > PAST_MAX) this.past.shift();
  }

  /** Has the region's lines go up, or down if it is less than nothing. */
  #scroll(by: number): void {
    const high = this.#bottom - this.#top + 1;
    for (let step = 0; step < Math.min(Math.abs(by), high); step += 1) {
      if (by > 0) {
        const [gone] = this.#screen.splice(this.#top, 1);
        this.#screen.splice(this.#bottom, 0, new Row(this.cols, this.#ground()));
        if (gone !== undefined && this.#top === 0 && this.#other === undefined) this.#keep(gone);
      } else {
        this.#screen.splice(this.#bottom, 1);
        this.#screen.splice(this.#top, 0, new Row(this.cols, this.#ground()));
      }
    }
  }

  /** What is erased has the colour of the ground. */
  #ground(): number {
    return this.#style & (31 << GROUND);
  }

  #escape(letter: string): void {
    switch (letter) {
      case "[":
        this.#state = "control";
        this.#parameters = "";
        return;
      case "]": case "P": case "X": case "^": case "_":
        this.#state = "string";
        return;
      case "(": case ")": case "*": case "+": case "#": case "%":
        this.#state = "charset";
        return;
      case "7":
        this.#kept = { x: this.x, y: this.y, style: this.#style };
        return;
      case "8":
        this.#restore();
        return;
      case "D":
        this.#down();
        return;
      case "E":
        this.#move(0, this.y);
        this.#down();
        return;
      case "M":
        if (this.y === this.#top) this.#scroll(-1);
        else this.#move(this.x, this.y - 1);
        return;
      case "c":
        this.#reset();
        return;
      default:
    }
  }

  #restore(): void {
    this.#style = this.#kept.style;
    this.#move(this.#kept.x, this.#kept.y);
  }

  #reset(): void {
    this.#leaveOther();
    this.#style = 0;
    [this.#top, this.#bottom] = [0, this.rows - 1];
    [this.cursorShown, this.arrowsOfPrograms, this.marksPasted, this.#wraps] = [true, false, false, true];
    this.#move(0, 0);
    for (const row of this.#screen) row.blank(0, this.cols, 0);
  }

  #control(last: string): void {
    const own = /^[<=>?]/.exec(this.#parameters)?.[0] ?? "";
    const said = this.#parameters.slice(own.length);
    // What stands between the numbers and the last letter makes it another one, of which none is known.
    if (/[ -/]/.test(said)) return;
    const all = said.split(/[;:]/).slice(0, PARAMETERS_MAX).map((part) => Math.min(PARAMETER_MAX, Number.parseInt(part, 10) || 0));
    if (own === "?") {
      if (last === "h" || last === "l") for (const mode of all) this.#mode(mode, last === "h");
      return;
    }
    if (own !== "") return;
    const first = all[0] ?? 0;
    const times = Math.max(1, first);
    const row = this.#screen[this.y];
    switch (last) {
      case "A": this.#move(this.x, Math.max(this.y >= this.#top ? this.#top : 0, this.y - times)); break;
      case "B": case "e": this.#move(this.x, Math.min(this.y <= this.#bottom ? this.#bottom : this.rows - 1, this.y + times)); break;
      case "C": case "a": this.#move(this.x + times, this.y); break;
      case "D": this.#move(this.x - times, this.y); break;
      case "E": this.#move(0, this.y + times); break;
      case "F": this.#move(0, this.y - times); break;
      case "G": case "`": this.#move(times - 1, this.y); break;
      case "d": this.#move(this.x, times - 1); break;
      case "H": case "f": this.#move(Math.max(1, all[1] ?? 1) - 1, times - 1); break;
      case "J": this.#erase(first); break;
      case "K": row?.blank(first === 0 ? this.x : 0, first === 1 ? this.x + 1 : this.cols, this.#ground()); break;
      case "X": row?.blank(this.x, this.x + times, this.#ground()); break;
      case "L": case "M": this.#lines(last === "L" ? -times : times); break;
      case "@": this.#cells(times); break;
      case "P": this.#cells(-times); break;
      case "S": this.#scroll(times); break;
      case "T": this.#scroll(-times); break;
      case "m": this.#styles(all); break;
      case "r": this.#region(times, all[1] ?? 0); break;
      case "s": this.#kept = { x: this.x, y: this.y, style: this.#style }; break;
      case "u": this.#restore(); break;
      case "c": if (first === 0) this.#answers += "\u001b[?1;2c"; break;
      case "n":
        if (first === 5) this.#answers += "\u001b[0n";
        else if (first === 6) this.#answers += `\u001b[${this.y + 1};${this.x + 1}R`;
        break;
      default:
    }
  }

  #mode(mode: number, on: boolean): void {
    if (mode === 1) this.arrowsOfPrograms = on;
    else if (mode === 7) this.#wraps = on;
    else if (mode === 25) this.cursorShown = on;
    else if (mode === 2004) this.marksPasted = on;
    else if (mode === 47 || mode === 1047 || mode === 1049) {
      if (on && this.#other === undefined) {
        this.#keptOfMain = { x: this.x, y: this.y, style: this.#style };
        this.#other = this.#screen;
        this.#screen = Array.from({ length: this.rows }, () => new Row(this.cols));
      } else if (!on && this.#other !== undefined) {
        this.#leaveOther();
        this.#style = this.#keptOfMain.style;
        this.#move(this.#keptOfMain.x, this.#keptOfMain.y);
      }
    }
  }

  #leaveOther(): void {
    if (this.#other === undefined) return;
    this.#screen = this.#other;
    this.#other = undefined;
  }

  #erase(what: number): void {
    const ground = this.#ground();
    if (what === 3) this.past.length = 0;
    this.#screen.forEach((row, at) => {
      if (what === 2 || (what === 0 && at > this.y) || (what === 1 && at < this.y)) row.blank(0, this.cols, ground);
      else if (at === this.y && what < 2) row.blank(what === 0 ? this.x : 0, what === 0 ? this.cols : this.x + 1, ground);
    });
  }

  #lines(by: number): void {
    if (this.y < this.#top || this.y > this.#bottom) return;
    const top = this.#top;
    const keeps = this.#other;
    // Lines that are deleted in the middle are not past.
    this.#other ??= [];
    this.#top = this.y;
    this.#scroll(by);
    this.#top = top;
    this.#other = keeps;
    this.#move(0, this.y);
  }

  #cells(by: number): void {
    const row = this.#screen[this.y];
    if (row === undefined) return;
    const much = Math.min(Math.abs(by), this.cols - this.x);
    const blanks = new Array<string>(much).fill(" ");
    const grounds = new Array<number>(much).fill(this.#ground());
    const [from, to] = by > 0 ? [this.x, this.cols] : [this.cols, this.x];
    if (by > 0) {
      row.cells.splice(from, 0, ...blanks);
      row.styles.splice(from, 0, ...grounds);
      row.cells.length = row.styles.length = this.cols;
    } else {
      row.cells.splice(to, much);
      row.styles.splice(to, much);
      row.cells.push(...blanks);
      row.styles.push(...grounds);
    }
    row.version += 1;
    this.#full = false;
  }

  #region(top: number, bottom: number): void {
    const [from, to] = [top - 1, (bottom === 0 ? this.rows : Math.min(bottom, this.rows)) - 1];
    if (from >= to) return;
    [this.#top, this.#bottom] = [from, to];
    this.#move(0, 0);
  }

  #styles(all: readonly number[]): void {
    const colour = (at: number, value: number) => (this.#style = (this.#style & ~(31 << at)) | (value << at));
    const bit = (mask: number, on: boolean) => (this.#style = on ? this.#style | mask : this.#style & ~mask);
    for (let at = 0; at < Math.max(1, all.length); at += 1) {
      const one = all[at] ?? 0;
      if (one === 0) this.#style = 0;
      else if (one === 1) bit(BOLD, true);
      else if (one === 2) bit(FAINT, true);
      else if (one === 3) bit(ITALIC, true);
      else if (one === 4) bit(UNDERLINED, true);
      else if (one === 7) bit(TURNED, true);
      else if (one === 22) bit(BOLD | FAINT, false);
      else if (one === 23) bit(ITALIC, false);
      else if (one === 24) bit(UNDERLINED, false);
      else if (one === 27) bit(TURNED, false);
      else if (one >= 30 && one <= 37) colour(INK, one - 29);
      else if (one >= 40 && one <= 47) colour(GROUND, one - 39);
      else if (one >= 90 && one <= 97) colour(INK, one - 81);
      else if (one >= 100 && one <= 107) colour(GROUND, one - 91);
      else if (one === 39) colour(INK, 0);
      else if (one === 49) colour(GROUND, 0);
      else if (one === 38 || one === 48) {
        const where = one === 38 ? INK : GROUND;
        if (all[at + 1] === 5) {
          colour(where, 1 + indexed(Math.min(255, all[at + 2] ?? 0)));
          at += 2;
        } else if (all[at + 1] === 2) {
          colour(where, 1 + nearest(all[at + 2] ?? 0, all[at + 3] ?? 0, all[at + 4] ?? 0));
          at += 4;
        }
      }
    }
  }
}

/** What a key says to a program; undefined for one that says nothing, or only by the text that comes of it. */
export function keySaid(key: { readonly key: string; readonly ctrlKey: boolean; readonly altKey: boolean; readonly shiftKey: boolean }, arrowsOfPrograms: boolean): string | undefined {
  const arrow = (last: string) => {
    const held = 1 + (key.shiftKey ? 1 : 0) + (key.altKey ? 2 : 0) + (key.ctrlKey ? 4 : 0);
    if (held > 1) return `\u001b[1;${held}${last}`;
    return arrowsOfPrograms ? `\u001bO${last}` : `\u001b[${last}`;
  };
  switch (key.key) {
    case "Enter": return key.altKey ? "\u001b\r" : "\r";
    case "Backspace": return key.ctrlKey ? "\b" : key.altKey ? "\u001b\u007f" : "\u007f";
    case "Tab": return key.shiftKey ? "\u001b[Z" : "\t";
    case "Escape": return "\u001b";
    case "ArrowUp": return arrow("A");
    case "ArrowDown": return arrow("B");
    case "ArrowRight": return arrow("C");
    case "ArrowLeft": return arrow("D");
    case "Home": return arrow("H");
    case "End": return arrow("F");
    case "Insert": return "\u001b[2~";
    case "Delete": return "\u001b[3~";
    case "PageUp": return "\u001b[5~";
    case "PageDown": return "\u001b[6~";
    default:
  }
  const function_ = /^F(\d{1,2})$/.exec(key.key);
  if (function_ !== null) {
    const number = Number(function_[1]);
    if (number >= 1 && number <= 4) return `\u001bO${"PQRS"[number - 1] ?? ""}`;
    const codes = [15, 17, 18, 19, 20, 21, 23, 24];
    const code = codes[number - 5];
    return code === undefined ? undefined : `\u001b[${code}~`;
  }
  if (key.key.length !== 1) return undefined;
  if (key.ctrlKey && !key.altKey) {
    const code = key.key.toUpperCase().charCodeAt(0);
    if (code >= 0x40 && code <= 0x5f) return String.fromCharCode(code - 0x40);
    return key.key === " " ? "\u0000" : key.key === "/" ? "\u001f" : undefined;
  }
  return key.altKey && !key.ctrlKey ? `\u001b${key.key}` : undefined;
}

/** Text from the clipboard as it is typed: without what would be taken for keys. */
export function pasted(text: string, marked: boolean): string {
  const typed = text.replace(/\r\n?|\n/g, "\r").replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, "");
  return marked ? `\u001b[200~${typed}\u001b[201~` : typed;
}
