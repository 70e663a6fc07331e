/** The screen that a program means by what it writes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { classesOf, keySaid, PAST_MAX, pasted, Terminal } from "../../src/model/terminal";

const E = "\u001b";

function after(written: string, cols = 10, rows = 4): Terminal {
  const terminal = new Terminal(cols, rows);
  terminal.write(written);
  return terminal;
}

test("letters, lines and movements make the screen", () => {
  for (const [written, shown, at] of [
    ["ab\r\ncd", "ab\ncd", [2, 1]],
    ["ab\ncd", "ab\n  cd", [4, 1]],
    ["abc\b\bX", "aXc", [2, 0]],
    ["a\tb", "a       b", [9, 0]],
    ["0123456789A", "0123456789\nA", [1, 1]],
    // The last cell is filled before the line is left.
    ["0123456789\r\nB", "0123456789\nB", [1, 1]],
    [`${E}[?7l0123456789AB`, "012345678B", [9, 0]],
    [`${E}[2;3Hx`, "\n  x", [3, 1]],
    [`abc${E}[1G${E}[1PZ`, "Zc", [1, 0]],
    [`abc${E}[2D${E}[2@Z`, "aZ bc", [2, 0]],
    [`abc${E}[2D${E}[K`, "a", [1, 0]],
    [`abc${E}[1K`, "", [3, 0]],
    [`a\r\nb\r\nc${E}[2;1H${E}[J`, "a", [0, 1]],
    [`abcd${E}[1;2H${E}[2X`, "a  d", [1, 0]],
    [`a\r\nb\r\nc${E}[1;1H${E}[L`, "\na\nb\nc", [0, 0]],
    [`a\r\nb\r\nc${E}[1;1H${E}[M`, "b\nc", [0, 0]],
    [`a${E}7\r\nb${E}8c`, "ac\nb", [2, 0]],
    [`a${E}[99B${E}[99Cz`, "a\n\n\n         z", [9, 3]],
    [`${E}]0;a title\u0007ok${E}]2;other${E}\\!`, "ok!", [3, 0]],
    [`${E}(Bok${E}[>4;2m!`, "ok!", [3, 0]],
    [`${E}[31;1mred${E}[0m`, "red", [3, 0]],
    ["e\u0301\u202ex\u200b", "e\u0301\ufffdx\ufffd", [4, 0]],
    ["\u6f22\u5b57!", "\u6f22\u5b57!", [5, 0]],
    ["\u6f22\b\bx", "x", [1, 0]],
  ] as const) {
    const terminal = after(written);
    assert.equal(terminal.text(), shown, JSON.stringify(written));
    assert.deepEqual([terminal.x, terminal.y], at, JSON.stringify(written));
  }
});

test("what goes off the top is kept, and no more than that", () => {
  const terminal = after("1\r\n2\r\n3\r\n4\r\n5", 10, 3);
  assert.equal(terminal.text(), "1\n2\n3\n4\n5");
  assert.equal(terminal.past.length, 2);
  terminal.write("\r\nx".repeat(PAST_MAX * 2));
  assert.equal(terminal.past.length, PAST_MAX);
  terminal.write(`${E}[3J`);
  assert.equal(terminal.past.length, 0);
});

test("a region scrolls by itself, and the other screen leaves no trace", () => {
  const terminal = after(`top\r\na\r\nb\r\nend${E}[2;3r${E}[3;1H\nc${E}[r`);
  assert.equal(terminal.text(), "top\nb\nc\nend");
  assert.equal(terminal.past.length, 0);
  terminal.write(`${E}[2;2H${E}[?1049h${E}[H${E}[2Jeditor\r\n\n\n\n\n`);
  assert.equal(terminal.text(), "");
  terminal.write(`${E}[?1049l`);
  assert.equal(terminal.text(), "top\nb\nc\nend");
  assert.deepEqual([terminal.x, terminal.y], [1, 1]);
});

test("colours and styles are pieces of a line", () => {
  const runs = (written: string) => (after(written, 40).screen[0]?.runs() ?? []).map(({ text, style }) => `${text}|${classesOf(style)}`);
  assert.deepEqual(runs(`a${E}[1;31mb${E}[22;39mc`), ["a|", "b|t-ink-1 t-bold", "c|"]);
  assert.deepEqual(runs(`${E}[38;5;196mx${E}[48;2;0;0;250my${E}[m `), ["x|t-ink-9", "y|t-ink-9 t-ground-4"]);
  assert.deepEqual(runs(`${E}[7mx${E}[32my`), ["x|t-turned", "y|t-ground-2"]);
  assert.deepEqual(runs(`${E}[97;4;3;2mx`), ["x|t-ink-15 t-faint t-italic t-underlined"]);
  const row = after("abc").screen[0];
  assert.deepEqual(row?.runs(1).map(({ text }) => text), ["a", "b", "c"]);
  assert.deepEqual(row?.runs(4).map(({ text }) => text), ["abc ", " "]);
});

test("whoever asks the terminal is answered", () => {
  const terminal = new Terminal(10, 4);
  assert.equal(terminal.write(`ab\r\nc${E}[6n${E}[5n${E}[c`), `${E}[2;2R${E}[0n${E}[?1;2c`);
  assert.equal(terminal.write("x"), "");
});

test("another size keeps what is written", () => {
  const terminal = after("1\r\n2\r\n3\r\n4", 10, 4);
  terminal.resize(4, 2);
  assert.equal(terminal.text(), "1\n2\n3\n4");
  assert.deepEqual([terminal.y, terminal.past.length], [1, 2]);
  terminal.resize(6, 5);
  terminal.write("!");
  assert.match(terminal.text(), /4!/);
  assert.equal(terminal.screen.length, 5);
});

test("any text leaves a whole screen", () => {
  let seed = 1;
  const chance = (below: number) => {
    seed = (seed * 48271) % 0x7fffffff;
    return seed % below;
  };
  const parts = [E, "[", "]", "?", ";", "9999", "0", "1", "H", "J", "K", "L", "M", "P", "@", "r", "m", "h", "l", "1049", "\n", "\r", "\b", "\t", "a", "\u6f22", "\u0301", "\u009b", "\u0007", "D", "S", "T", "7", "8", "c", "\ud800"];
  const terminal = new Terminal(7, 5);
  for (let round = 0; round < 20_000; round += 1) {
    terminal.write(parts[chance(parts.length)] ?? "");
    if (round % 500 === 0) terminal.resize(2 + chance(12), 2 + chance(9));
    assert.equal(terminal.screen.length, terminal.rows);
    for (const row of terminal.screen) assert.deepEqual([row.cells.length, row.styles.length], [terminal.cols, terminal.cols]);
    assert.ok(terminal.x >= 0 && terminal.x < terminal.cols && terminal.y >= 0 && terminal.y < terminal.rows);
  }
});

test("keys say what programs expect", () => {
  const key = (key: string, held = "") => ({ key, ctrlKey: held.includes("c"), altKey: held.includes("a"), shiftKey: held.includes("s") });
  for (const [pressed, programs, said] of [
    [key("Enter"), false, "\r"],
    [key("ArrowUp"), false, `${E}[A`],
    [key("ArrowUp"), true, `${E}OA`],
    [key("ArrowLeft", "c"), true, `${E}[1;5D`],
    [key("Tab", "s"), false, `${E}[Z`],
    [key("c", "c"), false, "\u0003"],
    [key("C", "cs"), false, "\u0003"],
    [key("[", "c"), false, E],
    [key("b", "a"), false, `${E}b`],
    [key("F1"), false, `${E}OP`],
    [key("F12"), false, `${E}[24~`],
    [key("a"), false, undefined],
    [key("Shift", "s"), false, undefined],
  ] as const)
    assert.equal(keySaid(pressed, programs), said, pressed.key);
  assert.equal(pasted("a\r\nb\u001b[2J\nc", false), "a\rb[2J\rc");
  assert.equal(pasted("a", true), `${E}[200~a${E}[201~`);
});
