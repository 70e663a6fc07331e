/** Three servers, of which the one that leads is killed: the page that another serves goes on. Takes a minute, so only where everything is asked for. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { missing, place, until, World, type Watched } from "./world";

const why = missing() ?? (process.env["DASHBOARD_WHOLE"] === undefined ? "only with everything (`--whole`)" : undefined);

/** The process of a server, which is told its folder: the first has the cluster's own. */
function processOf(folder: string, id: number): number | undefined {
  const own = id === 1 ? join(folder, "data") : join(folder, "data", "servers", `server-${id}`);
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      if (words[1] === "server" && words.includes(own)) return Number(name);
    } catch {
      // It has ended.
    }
  }
  return undefined;
}

describe("a leader that is killed", { skip: why ?? false }, () => {
  const world = new World();
  let own: Watched;

  before(async () => {
    await world.start(3, 2);
    await world.vote(10);
  }, { timeout: 300_000 });

  after(async () => world.end(), { timeout: 60_000 });

  test("breaks no page of another server", { timeout: 180_000 }, async () => {
    const { servers } = (await world.ask("GET", "/weft/v1/servers")).body as { servers: { id: number; leader: boolean; url?: string }[] };
    const leader = servers.find((server) => server.leader)?.id ?? 0;
    const process_ = processOf(world.folder, leader);
    assert.ok(process_ !== undefined, "the leader is a process");
    // A server that does not lead.
    const other = servers.find((server) => !server.leader && server.url !== undefined)?.url;
    assert.ok(other !== undefined, "another one serves");
    world.api = other;
    own = await world.page();
    await own.go(place("traffic", { ns: "vote" }));
    const flow = own.page.locator(".flow");
    await until("it is live", async () => (await flow.textContent()) === "live", 15_000);
    process.kill(process_, "SIGKILL");
    await until("figures flow again", async () => (await flow.textContent()) === "live" && (await own.page.locator("[data-arrow]").count()) === 3, 30_000);
    for (const [page, heading] of [["workloads", "Workloads"], ["nodes", "Nodes"], ["rollouts", "Rollouts"]] as const) {
      await own.go(place(page, { ns: "vote" }));
      await own.page.getByRole("heading", { name: heading }).waitFor();
      assert.equal(await own.page.getByText("Refused").count(), 0);
    }
    await own.go(place("workloads", { ns: "vote" }));
    await own.page.getByRole("link", { name: "voting" }).waitFor({ timeout: 20_000 });
    assert.deepEqual(own.complaints, []);
  });
});
