/** Bundles a script of `tools/` that is TypeScript, and runs it in this process. */

import { build } from "esbuild";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

export async function run(name) {
  const outfile = join(root, ".built-tests", `${name}.mjs`);
  await build({ absWorkingDir: root, entryPoints: [join(root, "test", "browser", `${name}.ts`)], outfile, bundle: true, platform: "node", format: "esm", target: "node20", external: ["playwright-core", "axe-core"], sourcemap: "inline", logLevel: "warning" });
  process.chdir(root);
  await import(pathToFileURL(outfile).href);
}
