/** Words that find and hide. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { expression } from "../../src/model/expression";

const FIELDS = ["name", "ns", "errors", "p95"];
const PAY = { name: "pay", ns: "bank", errors: 12, p95: 200 };
const WEB = { name: "web", ns: "shop", errors: 0, p95: 20 };

test("what is asked for is found, and nothing else", () => {
  for (const [said, pay, web] of [
    ["", true, true],
    ["pa", true, false],
    ["PAY", true, false],
    ["errors > 1", true, false],
    ["errors >= 12% and ns = bank", true, false],
    ["ns != bank", false, true],
    ["! errors > 1", false, true],
    ["name ~ e or p95 > 100ms", true, true],
    ["ns=shop errors<1", false, true],
    ['name = "web"', false, true],
  ] as const) {
    const { test, error } = expression(said, FIELDS);
    assert.equal(error, "", said);
    assert.deepEqual([test(PAY), test(WEB)], [pay, web], said);
  }
});

test("what cannot be understood says why, and hides nothing", () => {
  for (const [said, error] of [
    ["errors >", "what is errors >?"],
    ["= 3", 'what is before "="?'],
    ["colour = red", '"colour" is none of name, ns, errors, p95'],
    ["a and", "something is missing at the end"],
    [Array.from({ length: 70 }, () => "a").join(" "), "more than 64 words"],
  ] as const) {
    const found = expression(said, FIELDS);
    assert.equal(found.error, error);
    assert.equal(found.test(PAY), true);
  }
});
