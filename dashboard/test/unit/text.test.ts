/** What others wrote is shown as text in which nothing is hidden. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { middle, plain, plainLines, withoutSequences } from "../../src/model/text";

test("what cannot be seen is named", () => {
  for (const [said, shown] of [
    ["web-1", "web-1"],
    ["a\u202egnp.exe", "a⟨U+202E⟩gnp.exe"],
    ["\u2067x\u2069", "⟨U+2067⟩x⟨U+2069⟩"],
    ["zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"],
    ["bell\u0007 escape\u001b", "bell␇ escape␛"],
    ["line\nbreak", "line␊break"],
    ["tab\tstays", "tab\tstays"],
    ["half \ud800 a pair", "half ⟨U+D800⟩ a pair"],
    ["tag \u{e0041}", "tag ⟨U+E0041⟩"],
    ["<b>&amp;</b>", "<b>&amp;</b>"],
    ["日本語 😀", "日本語 😀"],
  ] as const)
    assert.equal(plain(said), shown);
});

test("lines stay where there are lines, and nothing else does", () => {
  assert.equal(plainLines("a\nb\r\nc\u202e"), "a\nb\nc⟨U+202E⟩");
});

test("a text is cut, however long it is", () => {
  assert.equal(plain("x".repeat(5000), 10), `${"x".repeat(10)}…`);
  assert.equal(middle("recommendation-service", 11), "recom…rvice");
  assert.equal(middle("short", 11), "short");
});

test("what only a terminal understands is left out", () => {
  assert.equal(withoutSequences("\u001b[31mred\u001b[0m \u001b]0;title\u0007rest"), "red rest");
});
