/** What pods used a while ago. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { NO_USAGE, Pasts, PODS_MAX, READINGS_KEPT, type Usage } from "../../src/model/usage";

const used = (bytes: number): Usage => ({ ...NO_USAGE, bytes, instances: 1 });

test("what pods used is told together, from when the first was there", () => {
  const pasts = new Pasts();
  pasts.push(1, new Map());
  pasts.push(2, new Map([["n/a", used(10)]]));
  pasts.push(3, new Map([["n/a", used(10)], ["n/b", used(5)]]));
  pasts.push(4, new Map([["n/b", used(6)]]));
  pasts.push(5, new Map());
  const told = (...names: string[]) => pasts.of(names).map(({ at, bytes, instances, pods }) => [at, bytes, instances, pods]);
  assert.deepEqual(told("n/a", "n/b"), [[2, 10, 1, 1], [3, 15, 2, 2], [4, 6, 1, 1], [5, 0, 0, 0]]);
  assert.deepEqual(told("n/b"), [[3, 5, 1, 1], [4, 6, 1, 1], [5, 0, 0, 0]]);
  assert.deepEqual(told("n/none"), []);
  pasts.clear();
  assert.deepEqual(told("n/a"), []);
});

test("as much is kept as is said, whatever changes and whoever is gone", () => {
  const pasts = new Pasts();
  for (let reading = 1; reading <= READINGS_KEPT + 50; reading += 1) pasts.push(reading, new Map([["n/still", used(1)], ["n/busy", used(reading)]]));
  const still = pasts.of(["n/still"]);
  assert.deepEqual([still.length, still[0]?.at, still[0]?.bytes], [READINGS_KEPT, 51, 1]);
  assert.deepEqual(pasts.of(["n/busy"]).map(({ bytes }) => bytes).slice(0, 2), [51, 52]);
  for (let reading = 0; reading <= READINGS_KEPT; reading += 1) pasts.push(1000 + reading, new Map());
  assert.deepEqual(pasts.of(["n/still"]), []);
  pasts.push(2000, new Map(Array.from({ length: PODS_MAX + 10 }, (_, index) => [`n/${index}`, used(1)])));
  assert.equal(pasts.of([`n/${PODS_MAX - 1}`]).length, 1);
  assert.equal(pasts.of([`n/${PODS_MAX}`]).length, 0);
});
