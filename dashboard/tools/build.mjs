/**
 * Builds `dist/`: one bundle in pieces with names by their content, `index.html`, and each file once more as gzip and as brotli.
 *
 * Ends with an error where what a first visit loads is over the budget.
 */

import { build } from "esbuild";
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, "dist");

/** What a first visit may load, as gzip sends it. */
export const FIRST_LOAD_BYTES_MAX = 100 * 1024;
/** Smaller ones gain nothing by it. */
const COMPRESSED_FROM_BYTES = 512;

const FAVICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><rect width="20" height="20" rx="4" fill="#0b6884"/><path d="M0 5h20M0 10h20M0 15h20" stroke="#fff" stroke-width="1.6"/><rect x="8" width="4" height="20" fill="#0b6884"/></svg>\n`;

function page(script, style, pieces) {
  const early = pieces.map((piece) => `    <link rel="modulepreload" href="/dashboard/${piece}">\n`).join("");
  return `<!doctype html>
<html lang="en" data-theme="auto">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>weft</title>
    <link rel="icon" href="/dashboard/favicon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="/dashboard/${style}">
${early}    <script type="module" src="/dashboard/${script}"></script>
  </head>
  <body>
    <div id="app"></div>
    <noscript>The dashboard of weft is a program in this page, and needs JavaScript. <code>kubectl</code> and <code>weft mesh</code> say the same.</noscript>
  </body>
</html>
`;
}

async function files(folder) {
  const found = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...(await files(path)));
    else if (!entry.name.startsWith(".")) found.push(path);
  }
  return found.sort();
}

/** What a piece needs at once, with what those need. */
function needed(outputs, name, seen = new Set()) {
  if (seen.has(name)) return seen;
  seen.add(name);
  for (const { path, kind } of outputs[name]?.imports ?? []) if (kind === "import-statement") needed(outputs, path, seen);
  return seen;
}

export async function bundle() {
  await mkdir(dist, { recursive: true });
  // The folder itself, and what keeps it in the repository, stay.
  for (const name of await readdir(dist)) if (!name.startsWith(".")) await rm(join(dist, name), { recursive: true });
  await mkdir(join(dist, "assets"));
  const result = await build({
    absWorkingDir: root,
    entryPoints: { app: "src/main.tsx" },
    outdir: "dist/assets",
    bundle: true,
    splitting: true,
    format: "esm",
    target: ["es2022", "chrome123", "firefox120", "safari17.5"],
    jsx: "automatic",
    jsxImportSource: "preact",
    minify: true,
    metafile: true,
    charset: "utf8",
    legalComments: "none",
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    logLevel: "warning",
  });
  const { outputs } = result.metafile;
  const entry = Object.keys(outputs).find((name) => outputs[name].entryPoint === "src/main.tsx");
  const style = outputs[entry].cssBundle;
  const first = [...needed(outputs, entry)];
  const short = (name) => relative("dist", name);
  await writeFile(join(dist, "favicon.svg"), FAVICON);
  await writeFile(join(dist, "index.html"), page(short(entry), short(style), first.filter((name) => name !== entry).map(short)));
  let firstBytes = 0;
  let all = 0;
  const loaded = new Set([...first, style, "dist/index.html"].map((name) => join(root, name)));
  for (const path of await files(dist)) {
    const content = await readFile(path);
    all += content.length;
    const packed = gzipSync(content, { level: 9 });
    if (loaded.has(path)) firstBytes += packed.length;
    if (content.length < COMPRESSED_FROM_BYTES) continue;
    if (packed.length < content.length) await writeFile(`${path}.gz`, packed);
    const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
    const tight = brotliCompressSync(content, { params });
    if (tight.length < content.length) await writeFile(`${path}.br`, tight);
  }
  return { firstBytes, all, outputs };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { firstBytes, all, outputs } = await bundle();
  const size = (bytes) => `${(bytes / 1024).toFixed(1)} KiB`;
  for (const [name, { bytes }] of Object.entries(outputs).sort((a, b) => b[1].bytes - a[1].bytes).slice(0, 8)) console.log(`  ${size(bytes).padStart(10)}  ${name}`);
  console.log(`dashboard: ${size(all)} in dist, a first visit loads ${size(firstBytes)} (gzip) of at most ${size(FIRST_LOAD_BYTES_MAX)}`);
  await stat(join(dist, "index.html"));
  if (firstBytes > FIRST_LOAD_BYTES_MAX) {
    console.error("error: the first load is over its budget; move what is not seen at once into a part that is loaded later");
    process.exit(1);
  }
}
