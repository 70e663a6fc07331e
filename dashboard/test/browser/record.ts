/**
 * A newcomer's first minute: `weft up`, `weft demo apply vote`, a click on the link that it prints, and the graph lives. Prints how long each step took as one JSON
 * document, and ends with an error where the whole takes longer than it may; the last thing that was seen is `docs/dashboard/first-minute.png`.
 *
 * The graph lives when every call of the sample is drawn, each with calls now.
 */

import { resolve } from "node:path";

import { missing, until, Watched, World } from "./world";

const WHOLE_MILLIS_MAX = 30_000;
const EDGES = 3;

const why = missing();
if (why !== undefined) {
  console.error(`error: ${why}`);
  process.exit(1);
}
const world = new World();
try {
  // A browser is open before anybody has heard of weft.
  await world.open();
  const began = Date.now();
  await world.start(1, 1);
  const up = Date.now();
  const told = JSON.parse(world.weft(["demo", "apply", "vote", "--output", "json"])) as { dashboard: string };
  const applied = Date.now();
  const context = await world.context();
  const page = await context.newPage();
  const watched = new Watched(world, context, page);
  await page.goto(told.dashboard);
  await until("every call is drawn", async () => (await page.locator("[data-arrow]:not([data-health=idle])").count()) === EDGES, 30_000);
  const alive = Date.now();
  await page.screenshot({ path: resolve("../docs/dashboard/first-minute.png") });
  const whole = alive - began;
  console.log(JSON.stringify({ up_millis: up - began, demo_millis: applied - up, graph_millis: alive - applied, whole_millis: whole, whole_millis_max: WHOLE_MILLIS_MAX, complaints: watched.complaints }, null, 2));
  if (whole > WHOLE_MILLIS_MAX || watched.complaints.length > 0) {
    console.error("error: it took too long, or the page complained");
    process.exitCode = 1;
  }
} finally {
  await world.end();
}
