/** Rings keep the newest, and no more. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Ring } from "../../src/model/ring";

test("the newest stay in their order", () => {
  const ring = new Ring<number>(3);
  assert.equal(ring.newest(), undefined);
  for (const value of [1, 2, 3, 4, 5]) ring.push(value);
  assert.deepEqual(ring.last(10), [3, 4, 5]);
  assert.deepEqual(ring.last(2), [4, 5]);
  assert.equal(ring.newest(), 5);
  assert.equal(ring.size, 3);
  assert.equal(ring.dropped, 2);
  assert.equal(ring.at(0), 3);
  assert.equal(ring.at(3), undefined);
  ring.clear();
  assert.deepEqual([ring.size, ring.dropped, ring.last(3)], [0, 0, []]);
});

test("a ring of nothing is none", () => {
  assert.throws(() => new Ring(0), RangeError);
});
