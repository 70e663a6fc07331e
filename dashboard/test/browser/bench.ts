/**
 * Pages of a large cluster: 5,000 pods of 200 Deployments, each with a Service, on hollow nodes. For each page, how long until it can be used; for long
 * tables, how many frames a second they are scrolled at.
 *
 * A page can be used when its rows are drawn and it answers: two frames have been drawn after that. Time begins with the navigation, so it has the page's
 * own code in it; beside it stand when the code had come, when the API was first asked, and when its last answer was there. Prints one JSON document, and ends with
 * an error where a bound is missed.
 */

import { spawn } from "node:child_process";
import { resolve } from "node:path";

import type { CDPSession } from "playwright-core";

import { missing, place, until, World } from "./world";

const PODS = Number(process.env["BENCH_PODS"] ?? 5000);
const SERVICES = Number(process.env["BENCH_SERVICES"] ?? 200);
const NODES = 50;
const INTERACTIVE_MILLIS_MAX = 1000;
const FRAMES_A_SECOND_MIN = 50;
const ROUNDS = 5;
const SCROLLED_SECONDS = 3;
const SIDE_BY_SIDE = 16;

const why = missing();
if (why !== undefined) {
  console.error(`error: ${why}`);
  process.exit(1);
}

/** Seconds that the page's thread has spent, by what on. */
async function spent(session: CDPSession): Promise<Record<string, number>> {
  const { metrics } = await session.send("Performance.getMetrics");
  return Object.fromEntries(metrics.filter(({ name }) => /^(?:Script|Layout|RecalcStyle|Task)Duration$/.test(name)).map(({ name, value }) => [name, value]));
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

const world = new World();
let hollow: ReturnType<typeof spawn> | undefined;
try {
  await world.start(1, 1);
  hollow = spawn(resolve(process.env["WEFT_PROGRAM"] ?? "../target/debug/weft"), ["node", "--hollow", `${NODES}`, "--kubeconfig", world.kubeconfig], { stdio: "ignore", env: { ...process.env, WEFT_KUBECONFIG: world.kubeconfig } });
  await until("hollow nodes are there", async () => ((await world.ask("GET", "/api/v1/nodes")).body as { items: object[] }).items.length > NODES, 60_000);
  // The one that is real runs nothing here.
  await world.ask("PATCH", "/api/v1/nodes/node-1", { spec: { unschedulable: true } });
  await world.ask("POST", "/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: "big" } });
  const names = Array.from({ length: SERVICES }, (_, index) => `app-${index}`);
  const work = [...names];
  await Promise.all(
    Array.from({ length: SIDE_BY_SIDE }, async () => {
      for (let name = work.pop(); name !== undefined; name = work.pop()) {
        const labels = { app: name };
        await world.ask("POST", "/api/v1/namespaces/big/services", { apiVersion: "v1", kind: "Service", metadata: { name }, spec: { selector: labels, ports: [{ port: 80 }] } });
        await world.ask("POST", "/apis/apps/v1/namespaces/big/deployments", {
          apiVersion: "apps/v1",
          kind: "Deployment",
          metadata: { name },
          spec: { replicas: Math.ceil(PODS / SERVICES), selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers: [{ name: "a", image: "big/app:1", resources: { requests: { cpu: "1m", memory: "1Mi" } } }] } } },
        });
      }
    }),
  );
  await until(
    "all pods run",
    async () => {
      const found = (await world.ask("GET", "/apis/apps/v1/namespaces/big/deployments")).body as { items: { status?: { readyReplicas?: number } }[] };
      return found.items.reduce((sum, one) => sum + (one.status?.readyReplicas ?? 0), 0) >= PODS;
    },
    600_000,
  );
  const watched = await world.page();
  const { page } = watched;
  const told: Record<string, unknown>[] = [];
  for (const [name, at, ready] of [
    ["overview", "?ns=", ".tile"],
    ["workloads", place("workloads", { ns: "big" }), "tr[data-at]"],
    ["pods", place("objects", { ns: "big", kind: "v1/pods" }), "tr[data-at]"],
    ["services", place("objects", { ns: "big", kind: "v1/services" }), "tr[data-at]"],
    ["workload", place("workload", { kind: "apps/v1/deployments", in: "big", name: "app-7" }), "tr[data-at]"],
    ["nodes", place("nodes", { ns: "" }), "tr[data-at]"],
    ["node", place("node", { name: "hollow-7" }), "tr[data-at]"],
    ["rollouts", place("rollouts", { ns: "" }), ".empty"],
    ["traffic", place("traffic", { ns: "" }), ".stage > *"],
    ["kinds", place("kinds", { ns: "" }), ".kinds li"],
  ] as const) {
    const times: number[] = [];
    const parts: { code: number; asked: number; answered: number }[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const began = Date.now();
      await page.goto(`${world.api}/dashboard/${at}`, { waitUntil: "commit" });
      await page.waitForSelector(`main ${ready}`, { state: "attached", timeout: 30_000 });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      times.push(Date.now() - began);
      parts.push(
        await page.evaluate(() => {
          const [whole] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
          const asked = (performance.getEntriesByType("resource") as PerformanceResourceTiming[]).filter(({ name }) => /^\/(?:api|apis|dashboard\/session)\b/.test(new URL(name).pathname));
          const ended = asked.filter(({ responseEnd }) => responseEnd > 0);
          return { code: whole?.domContentLoadedEventStart ?? 0, asked: Math.min(...asked.map(({ startTime }) => startTime)), answered: Math.max(...ended.map(({ responseEnd }) => responseEnd)) };
        }),
      );
    }
    const measured: Record<string, unknown> = { page: name, interactive_millis: { median: median(times), most: Math.max(...times) } };
    for (const part of ["code", "asked", "answered"] as const) measured[`${part}_millis`] = Math.round(median(parts.map((one) => one[part])));
    const table = page.locator("main .table").first();
    if (name === "pods" || name === "workloads") {
      if (name === "pods") await page.waitForFunction((pods) => Number(document.querySelector(".count")?.textContent) >= pods, PODS, { timeout: 60_000 });
      const session = await watched.context.newCDPSession(page);
      await session.send("Performance.enable");
      const before = await spent(session);
      measured["frames_a_second"] = await table.evaluate(
        (element, seconds) =>
          new Promise<number>((done) => {
            const began = performance.now();
            let frames = 0;
            const step = () => {
              frames += 1;
              element.scrollTop = (element.scrollTop + 120) % Math.max(1, element.scrollHeight - element.clientHeight);
              const took = performance.now() - began;
              if (took < seconds * 1000) requestAnimationFrame(step);
              else done(Math.round((frames / took) * 1000));
            };
            requestAnimationFrame(step);
          }),
        SCROLLED_SECONDS,
      );
      const after = await spent(session);
      await session.detach();
      // What the page's own thread did meanwhile; drawing itself is on others.
      measured["percent_of_thread"] = Object.fromEntries(Object.entries(after).map(([name, seconds]) => [name, Math.round(((seconds - (before[name] ?? 0)) / SCROLLED_SECONDS) * 100)]));
    }
    told.push(measured);
  }
  console.log(JSON.stringify({ pods: PODS, services: SERVICES, rounds: ROUNDS, pages: told, complaints: watched.complaints }, null, 2));
  const missed = told.filter((one) => {
    const { median } = one["interactive_millis"] as { median: number };
    const frames = one["frames_a_second"];
    return median > INTERACTIVE_MILLIS_MAX || (typeof frames === "number" && frames < FRAMES_A_SECOND_MIN);
  });
  if (missed.length > 0) {
    console.error(`error: a bound is missed by ${missed.map((one) => one["page"]).join(", ")}`);
    process.exitCode = 1;
  }
} finally {
  hollow?.kill("SIGKILL");
  await world.end();
}
