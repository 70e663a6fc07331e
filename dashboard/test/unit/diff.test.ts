/** Differences of texts, and that they are what they say. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { diff, hunks, type Line } from "../../src/model/diff";

function shown(lines: readonly Line[]): string {
  return lines.map((line) => `${{ same: " ", removed: "-", added: "+" }[line.change]}${line.text}`).join("|");
}

test("a difference is the shortest one", () => {
  for (const [before, after, expected] of [
    ["a\nb\nc", "a\nb\nc", " a| b| c"],
    ["a\nb\nc", "a\nx\nc", " a|-b|+x| c"],
    ["a\nc", "a\nb\nc", " a|+b| c"],
    ["a\nb\nc", "c", "-a|-b| c"],
    ["", "a", "-|+a"],
    ["a\nb\nc\na\nb\nb\na", "c\nb\na\nb\na\nc", "-a|-b| c|+b| a| b|-b| a|+c"],
  ] as const)
    assert.equal(shown(diff(before, after)), expected);
});

test("lines that stay and go make the old text, those that stay and come the new one", () => {
  let seed = 7;
  const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 200; round += 1) {
    const text = () => Array.from({ length: random(20) }, () => "abc"[random(3)]).join("\n");
    const [before, after] = [text(), text()];
    const lines = diff(before, after);
    const of = (without: string) => lines.filter((line) => line.change !== without).map((line) => line.text).join("\n");
    assert.equal(of("added"), before);
    assert.equal(of("removed"), after);
  }
});

test("numbers of lines are those of each text", () => {
  const lines = diff("a\nb\nc", "a\nc\nd");
  assert.deepEqual(lines.map((line) => [line.old, line.new]), [[1, 1], [2, 0], [3, 2], [0, 3]]);
});

test("texts without end are one block out and one in", () => {
  const many = (letter: string) => Array.from({ length: 3000 }, (_, index) => `${letter}${index}`).join("\n");
  const lines = diff(many("a"), many("b"));
  assert.equal(lines.length, 6000);
  assert.ok(lines.slice(0, 3000).every((line) => line.change === "removed"));
});

test("only what changed is shown, with what is around it", () => {
  const before = Array.from({ length: 30 }, (_, index) => `${index}`);
  const after = [...before];
  after[10] = "x";
  const found = hunks(diff(before.join("\n"), after.join("\n")), 2);
  assert.deepEqual(found.map((hunk) => [hunk.skipped, shown(hunk.lines)]), [[8, " 8| 9|-10|+x| 11| 12"]]);
});
