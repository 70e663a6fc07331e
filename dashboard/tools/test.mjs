/**
 * Runs tests by Node's own runner: `test.mjs unit|browser [name…]`. They are TypeScript, and are bundled into `.built-tests/` first.
 *
 * Invariant: it ends, after `MINUTES_MAX` at the latest; what tests have started ends with them.
 */

import { build } from "esbuild";
import { readdir, rm } from "node:fs/promises";
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Far above what they take, on a machine that does other things meanwhile. */
const MINUTES_MAX = process.env.DASHBOARD_WHOLE === undefined ? 8 : 20;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [kind = "unit", ...names] = process.argv.slice(2);
const folder = join(root, "test", kind);
const found = (await readdir(folder)).filter((name) => name.endsWith(".test.ts") && (names.length === 0 || names.some((wanted) => name.startsWith(wanted))));
if (found.length === 0) {
  // They are of the other kind.
  console.error(`no test of ${kind} is named so`);
  process.exit(0);
}
const built = join(root, ".built-tests", kind);
await rm(built, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  entryPoints: found.map((name) => join(folder, name)),
  outdir: built,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  jsx: "automatic",
  jsxImportSource: "preact",
  outExtension: { ".js": ".mjs" },
  // Of what is installed only what the page itself is made of is bundled.
  external: ["playwright-core", "axe-core", "esbuild"],
  sourcemap: "inline",
  logLevel: "warning",
});
const files = found.map((name) => join(built, name.replace(/\.ts$/, ".mjs")));
const child = spawn(process.execPath, ["--enable-source-maps", "--test", "--test-concurrency=1", ...files], { cwd: root, stdio: "inherit" });
setTimeout(() => {
  console.error(`error: the tests were not through after ${MINUTES_MAX} minutes`);
  child.kill("SIGKILL");
  process.exit(1);
}, MINUTES_MAX * 60_000).unref();
child.on("exit", (code, signal) => process.exit(signal === null ? (code ?? 1) : 1));
