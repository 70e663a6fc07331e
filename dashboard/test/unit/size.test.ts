/** What a first visit loads stays small, and what is built keeps to the page's policy. */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";

const DIST = join(process.cwd(), "dist");
const FIRST_LOAD_BYTES_MAX = 100 * 1024;

/** As it is sent; what is small goes as it is. */
function sent(name: string): number {
  const packed = join(DIST, `${name}.gz`);
  return statSync(existsSync(packed) ? packed : join(DIST, name)).size;
}

test("the first load is within its budget", () => {
  const page = readFileSync(join(DIST, "index.html"), "utf8");
  const loaded = [...page.matchAll(/(?:src|href)="\/dashboard\/(assets\/[^"]+)"/g)].map(([, name]) => name ?? "");
  assert.ok(loaded.length >= 2, page);
  const sum = loaded.reduce((sum, name) => sum + sent(name), statSync(join(DIST, "index.html")).size);
  assert.ok(sum <= FIRST_LOAD_BYTES_MAX, `${sum} bytes`);
});

test("nothing is inline, and nothing comes from elsewhere", () => {
  const page = readFileSync(join(DIST, "index.html"), "utf8");
  assert.doesNotMatch(page, /<style|style="|<script(?![^>]*src=)| on[a-z]+="/);
  assert.doesNotMatch(page, /(?:src|href)="(?!\/dashboard\/)/);
  for (const name of readdirSync(join(DIST, "assets")).filter((name) => name.endsWith(".css"))) assert.doesNotMatch(readFileSync(join(DIST, "assets", name), "utf8"), /@import|url\(/);
  for (const name of readdirSync(join(DIST, "assets")).filter((name) => name.endsWith(".js"))) assert.doesNotMatch(readFileSync(join(DIST, "assets", name), "utf8"), /\beval\(|new Function\(/);
});

test("what is packed is what it was", () => {
  for (const name of readdirSync(join(DIST, "assets")).filter((name) => name.endsWith(".gz")))
    assert.deepEqual(gunzipSync(readFileSync(join(DIST, "assets", name))), readFileSync(join(DIST, "assets", name.slice(0, -3))));
});
