/** Takes every page at 1440 pixels, light, and at 390, dark; each scheme is seen, and each width. */

import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

import { missing, places, until, World } from "./world";

const FOLDER = resolve("../docs/dashboard");
/** So that curves have a past. */
const PAST_MILLIS = 60_000;

const why = missing();
if (why !== undefined) {
  console.error(`error: ${why}`);
  process.exit(1);
}
const world = new World();
try {
  await world.start(1, 3);
  await world.vote(20);
  const rollout = (build: string) => ({
    apiVersion: "weft.dev/v1alpha1",
    kind: "Rollout",
    metadata: { name: "recommend" },
    spec: {
      replicas: 2,
      selector: { matchLabels: { app: "recommend" } },
      template: { metadata: { labels: { app: "recommend" } }, spec: { containers: [{ name: "emoji", image: "vote/emoji:0.1", env: [{ name: "BUILD", value: build }], ports: [{ containerPort: 80 }] }] } },
      traffic: { service: "recommend" },
      strategy: { canary: { steps: [{ setWeight: 10 }, { pause: {} }, { setWeight: 50 }, { pause: { durationSeconds: 60 } }] } },
    },
  });
  const rollouts = "/apis/weft.dev/v1alpha1/namespaces/vote/rollouts";
  await world.apply("/api/v1/namespaces/vote/services", { apiVersion: "v1", kind: "Service", metadata: { name: "recommend" }, spec: { selector: { app: "recommend" }, ports: [{ port: 80 }] } } as never);
  await world.apply(rollouts, rollout("1"));
  const phase = async () => ((await world.ask("GET", `${rollouts}/recommend`)).body as { status?: { phase?: string } }).status?.phase;
  await until("the first revision is served", async () => (await phase()) === "Healthy", 60_000);
  await world.apply("/apis/weft.dev/v1alpha1/namespaces/vote/meshpolicies", { apiVersion: "weft.dev/v1alpha1", kind: "MeshPolicy", metadata: { name: "emoji" }, spec: { targetRefs: [{ kind: "Service", name: "emoji" }], timeouts: { request: "2s" }, retry: { attempts: 2 }, circuitBreaker: {} } } as never);
  await world.apply(rollouts, rollout("2"));
  await world.apply("/apis/apps/v1/namespaces/vote/deployments", {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "too-large" },
    spec: { replicas: 1, selector: { matchLabels: { app: "too-large" } }, template: { metadata: { labels: { app: "too-large" } }, spec: { containers: [{ name: "a", image: "vote/emoji:0.1", resources: { requests: { cpu: "900" } } }] } } },
  } as never);
  await world.apply("/apis/weft.dev/v1alpha1/namespaces/vote/faultinjections", { apiVersion: "weft.dev/v1alpha1", kind: "FaultInjection", metadata: { name: "voting-fault" }, spec: { targetRefs: [{ group: "", kind: "Service", name: "voting" }], duration: "15m", abort: { httpStatus: 503, percent: 20 } } } as never);
  mkdirSync(FOLDER, { recursive: true });
  for (const name of readdirSync(FOLDER)) if (/-\d+\.png$/.test(name)) rmSync(join(FOLDER, name));
  for (const [width, height, colorScheme] of [[1440, 900, "light"], [390, 844, "dark"]] as const) {
    const context = await world.context({ viewport: { width, height }, colorScheme });
    const sign = await context.newPage();
    await sign.goto(`${world.api}/dashboard/`);
    await sign.waitForSelector(".sign-in");
    await sign.screenshot({ path: join(FOLDER, `sign-in-${width}.png`) });
    await context.close();
  }
  for (const [width, height, colorScheme] of [[1440, 900, "light"], [390, 844, "dark"]] as const) {
    const watched = await world.page({ viewport: { width, height }, colorScheme });
    // Whatever looks has traces sampled.
    await watched.go("traces?ns=");
    await watched.page.waitForTimeout(PAST_MILLIS / 2);
    const waiting = (await world.ask("GET", "/api/v1/namespaces/vote/pods?labelSelector=app%3Dtoo-large")).body as { items: { metadata: { name: string } }[] };
    const more: [string, string][] = [["pod-waiting", `pod?in=vote&name=${waiting.items[0]?.metadata.name ?? ""}`]];
    for (const [name, at] of [...(await places(world)), ...more]) {
      await watched.go(at);
      await watched.settled();
      if (name === "console") {
        await watched.page.getByRole("button", { name: "Start" }).click();
        await watched.page.keyboard.type("ls -l / && echo $COLUMNS columns");
        await watched.page.keyboard.press("Enter");
        await watched.page.locator(".t-lines").getByText(/^\d+ columns$/).waitFor();
      }
      await watched.page.waitForTimeout(name.startsWith("traffic") || name === "workload" || name === "tap" ? 5000 : 2500);
      await watched.page.screenshot({ path: join(FOLDER, `${name}-${width}.png`) });
    }
    await watched.go("traces?ns=");
    const trace = watched.page.locator('main a[href*="traces?"][href*="id="]').first();
    await trace.waitFor({ timeout: 60_000 });
    await trace.click();
    await watched.page.getByRole("tree", { name: "Spans" }).getByRole("treeitem").nth(1).waitFor();
    await watched.page.screenshot({ path: join(FOLDER, `trace-${width}.png`) });
    for (const complaint of watched.complaints) console.error(`the page complains: ${complaint}`);
    await watched.context.close();
  }
  console.log(`pictures are in ${FOLDER}`);
} finally {
  await world.end();
}
