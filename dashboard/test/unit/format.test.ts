/** Numbers and times as they are read. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ago, bytes, cores, micros, percent, quantity, rate, seconds, span, whole } from "../../src/model/format";

test("numbers have three digits and their unit", () => {
  for (const [said, shown] of [
    [rate(0), "0/s"],
    [rate(0.001), "<0.01/s"],
    [rate(1.234), "1.23/s"],
    [rate(12.34), "12.3/s"],
    [rate(999.6), "1.00k/s"],
    [rate(12_345), "12.3k/s"],
    [rate(Number.NaN), "–"],
    [whole(9999), "9999"],
    [whole(123_456), "123k"],
    [percent(1), "100 %"],
    [percent(0.99999), "99.99 %"],
    [percent(0.9996), "99.96 %"],
    [percent(0.5), "50.0 %"],
    [percent(0.00001), "<0.01 %"],
    [percent(0), "0 %"],
    [micros(0.5), "0.50 µs"],
    [micros(999.7), "1.00 ms"],
    [micros(12_345), "12.3 ms"],
    [micros(2_500_000), "2.50 s"],
    [bytes(0), "0 B"],
    [bytes(1023.9), "1.00 KiB"],
    [bytes(50 << 20), "50 MiB"],
    [cores(20), "20m"],
    [cores(1500), "1.50"],
  ] as const)
    assert.equal(said, shown);
});

test("a share that is short of everything is never all of it", () => {
  for (let missing = 1; missing > 1e-9; missing /= 3) assert.notEqual(percent(1 - missing), "100 %");
});

test("times are in their two largest units", () => {
  for (const [length, shown] of [
    [0, "0s"],
    [59.9, "59s"],
    [61, "1m 1s"],
    [3600, "1h"],
    [3661, "1h 1m"],
    [90_000, "1d 1h"],
    [86_400 * 12 + 3600, "12d"],
  ] as const)
    assert.equal(span(length), shown);
  const now = Date.parse("2026-01-02T03:04:05Z");
  assert.equal(ago("2026-01-02T03:03:00Z", now), "1m 5s ago");
  assert.equal(ago("2026-01-02T03:04:06Z", now), "0s ago", "clocks differ by a little");
  assert.equal(ago("2026-01-02T04:04:05Z", now), "in 1h");
  assert.equal(ago("never", now), "–");
});

test("quantities and durations of Kubernetes", () => {
  for (const [said, value] of [
    ["250m", 0.25],
    ["64Mi", 64 * 2 ** 20],
    ["1e3", 1000],
    ["2", 2],
    [3, 3],
    ["5X", undefined],
    ["", undefined],
    [null, undefined],
  ] as const)
    assert.equal(quantity(said), value);
  assert.equal(seconds("1h30m"), 5400);
  assert.equal(seconds("500ms"), 0.5);
  assert.equal(seconds("soon"), undefined);
});
