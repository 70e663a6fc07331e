/** What the page promises, seen in a browser at a real cluster with the sample application under load. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";

import { missing, place, places, until, Wire, World, type Watched } from "./world";

const why = missing();
if (why !== undefined) console.error(`skipped: tests of the dashboard in a browser: ${why}`);

const AXE = why === undefined ? readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8") : "";
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const RATE = 20;
const FAULTS = "/apis/weft.dev/v1alpha1/namespaces/vote/faultinjections";
const ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/vote/httproutes";

describe("the dashboard", { skip: why ?? false }, () => {
  const world = new World();
  let own: Watched;

  before(async () => {
    await world.start(1, 2);
    await world.vote(RATE);
    own = await world.page();
  }, { timeout: 240_000 });

  after(async () => world.end(), { timeout: 60_000 });

  test("a link signs in once, and is gone from the address", async () => {
    const link = world.link("traffic?ns=vote");
    const [first, second] = [await world.context(), await world.context()];
    const page = await first.newPage();
    await page.goto(link);
    await page.waitForSelector("nav.side");
    assert.equal(new URL(page.url()).pathname + new URL(page.url()).search + new URL(page.url()).hash, "/dashboard/traffic?ns=vote");
    const again = await second.newPage();
    await again.goto(link);
    await again.waitForSelector(".sign-in [role=alert]");
    await first.close();
    await second.close();
  });

  test("the graph shows who calls whom within five seconds", async () => {
    const began = Date.now();
    await own.go(place("traffic", { ns: "vote" }));
    for (const [from, to] of [["bot", "web"], ["web", "emoji"], ["web", "voting"]] as const) await own.arrow(from, to).waitFor({ state: "attached", timeout: 5000 });
    assert.ok(Date.now() - began < 5000);
    assert.equal(await own.page.locator("[data-arrow]").count(), 3);
    // The table says the same.
    const table = own.page.getByRole("region", { name: "Calls between workloads" });
    await table.getByText("emoji vote").first().waitFor();
    assert.match((await own.page.locator('[data-node="w:vote/web"]').getAttribute("aria-label")) ?? "", /^web vote .*\/s, .* ok, /);
  });

  test("a fault turns its edge within three seconds, and its end turns it back", async () => {
    await own.go(place("traffic", { ns: "vote" }));
    const health = (is: boolean) => async () => ((await own.arrow("web", "emoji").getAttribute("data-health")) === "failing") === is;
    await until("the edge is well", health(false));
    await world.apply(FAULTS, { apiVersion: "weft.dev/v1alpha1", kind: "FaultInjection", metadata: { name: "emoji-fault" }, spec: { targetRefs: [{ group: "", kind: "Service", name: "emoji" }], duration: "5m", abort: { httpStatus: 503, percent: 100 } } } as never);
    await until("the edge fails", health(true), 3000);
    // What is at work is said at the edge.
    await own.page.locator('[data-arrow="w:vote/web>w:vote/emoji"] .glyph-fault').waitFor({ state: "attached", timeout: 3000 });
    assert.equal((await world.ask("DELETE", `${FAULTS}/emoji-fault`)).status, 200);
    await until("the edge is well again", health(false), 3000);
  });

  test("a fault is injected by the form, told, and ended", async () => {
    await own.go(place("faults", { ns: "vote" }));
    await own.page.getByLabel("Service").selectOption("vote/voting");
    await own.page.getByRole("button", { name: "Inject…" }).click();
    const dialog = own.page.getByRole("dialog");
    await dialog.getByLabel("For").selectOption("30s");
    await dialog.getByRole("button", { name: "Inject" }).click();
    await own.page.getByText("At work").waitFor();
    const made = (await world.ask("GET", `${FAULTS}/voting-fault`)).body as { spec: object };
    assert.deepEqual((made.spec as { abort: object }).abort, { httpStatus: 503, percent: 30 });
    await own.page.getByRole("button", { name: "End it: voting-fault" }).click();
    await until("it is gone", async () => (await world.ask("GET", `${FAULTS}/voting-fault`)).status === 404);
  });

  test("a weight that the slider moves is the object's, then the calls'", async () => {
    for (const name of ["emoji-1", "emoji-2"]) await world.apply("/api/v1/namespaces/vote/services", { apiVersion: "v1", kind: "Service", metadata: { name }, spec: { selector: { app: "emoji" }, ports: [{ name: "http", port: 80, targetPort: "http" }] } } as never);
    const backends = [{ name: "emoji-1", port: 80, weight: 100 }, { name: "emoji-2", port: 80, weight: 0 }];
    await world.apply(ROUTES, { apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "emoji" }, spec: { parentRefs: [{ group: "", kind: "Service", name: "emoji", port: 80 }], rules: [{ backendRefs: backends }] } } as never);
    await own.go(place("rollouts", { ns: "vote" }));
    const split = own.page.locator('[data-split="emoji"]');
    const slider = split.getByLabel("Share of emoji-2");
    await slider.waitFor();
    await slider.fill("60");
    await split.getByRole("button", { name: "Apply" }).click();
    await until("the object has it", async () => {
      const route = (await world.ask("GET", `${ROUTES}/emoji`)).body as { spec: { rules: { backendRefs: { weight: number }[] }[] } };
      return JSON.stringify(route.spec.rules[0]?.backendRefs.map((backend) => backend.weight)) === "[40,60]";
    });
    await until("calls go there", async () => {
      const edges = (await world.ask("GET", "/apis/mesh.weft.dev/v1/namespaces/vote/edges?window=5s")).body as { items: { service: { name: string }; callsPerSecond: number }[] };
      const calls = (name: string) => edges.items.filter((edge) => edge.service.name === name).reduce((sum, edge) => sum + edge.callsPerSecond, 0);
      const [one, two] = [calls("emoji-1"), calls("emoji-2")];
      return two / (one + two) > 0.4 && one > 0;
    }, 15_000);
    await until("the page tells it", async () => /\/s now/.test((await split.locator("label", { hasText: "emoji-2" }).textContent()) ?? ""));
    await world.ask("DELETE", `${ROUTES}/emoji`);
  });

  test("a line of a log arrives as it is written, and filters hold", async () => {
    await own.go(place("logs", { in: "vote", workload: "bot" }));
    const log = own.page.getByRole("log");
    await log.waitFor();
    const lines = async () => Number(/^(\d+) lines/.exec((await log.getAttribute("aria-label")) ?? "")?.[1] ?? 0);
    const seen = await lines();
    await until("more lines come", async () => (await lines()) > seen, 8000);
    await own.page.getByLabel("Find").fill("doughnut");
    await until("only those are shown", async () => (await own.page.locator(".log-line").allTextContents()).every((line) => line.includes("doughnut")));
  });

  test("calls are told as they end, and slow and failed ones as traces", async () => {
    await own.go(place("tap", { ns: "vote", workload: "web" }));
    await own.page.getByText("GET /api/find").first().waitFor({ timeout: 10_000 });
    await own.go(place("traces", { ns: "vote" }));
    const trace = own.page.locator('main a[href*="traces?"]').first();
    await trace.waitFor({ timeout: 30_000 });
    await trace.click();
    await own.page.getByRole("tree", { name: "Spans" }).getByRole("treeitem").nth(1).waitFor();
  });

  test("a deletion can be taken back", async () => {
    const configs = "/api/v1/namespaces/vote/configmaps";
    await world.apply(configs, { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "short-lived" } } as never);
    // Its clock is the test's: the time in which it can be taken back passes when that says so.
    const watched = await world.page();
    await watched.page.clock.install();
    const remove = async () => {
      await watched.go(place("object", { kind: "v1/configmaps", in: "vote", name: "short-lived" }));
      await watched.page.getByRole("button", { name: "Delete" }).click();
    };
    await remove();
    await watched.page.getByRole("button", { name: "Undo" }).click();
    await watched.page.clock.fastForward(7000);
    await watched.page.getByText("Taken back").waitFor({ state: "detached" });
    assert.equal((await world.ask("GET", `${configs}/short-lived`)).status, 200);
    await remove();
    await watched.page.getByRole("button", { name: "Undo" }).waitFor();
    await watched.page.clock.fastForward(7000);
    await until("it is deleted", async () => (await world.ask("GET", `${configs}/short-lived`)).status === 404, 10_000);
    await watched.context.close();
  });

  test("YAML is tried, compared, and applied; a refusal is in the API's words", async () => {
    await own.go(place("object", { kind: "apps/v1/deployments", in: "vote", name: "emoji", tab: "yaml" }));
    const type = async (from: string, to: string) =>
      own.page.locator(".editor").evaluate(
        (element, [from = "", to = ""]) => {
          const { editor } = element as unknown as { editor: { state: { doc: { toString(): string } }; dispatch(change: object): void } };
          const at = editor.state.doc.toString().indexOf(from);
          editor.dispatch({ changes: { from: at, to: at + from.length, insert: to } });
        },
        [from, to],
      );
    await own.page.waitForFunction(() => (document.querySelector(".editor") as unknown as { editor?: unknown })?.editor !== undefined);
    await type("replicas: 2", "replicas: -2");
    await own.page.getByRole("button", { name: "Check and compare" }).click();
    await own.page.getByRole("alert").getByText("spec.replicas: Invalid value: -2: must be greater than or equal to 0").waitFor();
    await type("replicas: -2", "replicas: 3");
    await own.page.getByRole("button", { name: "Check and compare" }).click();
    const difference = own.page.locator(".diff");
    await difference.waitFor();
    assert.match((await difference.textContent()) ?? "", /−\s+replicas: 2[^]*\+\s+replicas: 3/);
    const emoji = async () => ((await world.ask("GET", "/apis/apps/v1/namespaces/vote/deployments/emoji")).body as { spec: { replicas: number } }).spec.replicas;
    assert.equal(await emoji(), 2, "nothing is changed by looking");
    await own.page.getByRole("button", { name: "Apply" }).click();
    await until("it is applied", async () => (await emoji()) === 3);
  });

  test("a console is a terminal, or plain", async () => {
    const pods = (await world.ask("GET", "/api/v1/namespaces/vote/pods?labelSelector=app%3Dweb&limit=1")).body as { items: { metadata: { name: string } }[] };
    const { page } = own;
    await own.go(place("pod", { in: "vote", name: pods.items[0]?.metadata.name ?? "", tab: "console" }));
    const screen = page.getByRole("region", { name: "Terminal" });
    const keys = screen.getByRole("textbox");
    await page.getByRole("button", { name: "Start" }).click();
    await until("keys go to it", async () => keys.evaluate((field) => field === document.activeElement));
    await page.keyboard.type("echo $((6 * 7)) is saidX");
    await page.keyboard.press("Backspace");
    await page.keyboard.press("Enter");
    await screen.getByText("42 is said", { exact: true }).waitFor({ timeout: 30_000 });
    await page.keyboard.type("clear");
    await page.keyboard.press("Enter");
    await until("the screen is erased", async () => !/42 is said/.test((await screen.textContent()) ?? ""));
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowUp");
    await until("what was said before comes again", async () => /echo \$\(\(6 \* 7\)\) is said/.test((await screen.textContent()) ?? ""));
    await page.keyboard.press("Control+u");
    await page.keyboard.press("Control+m");
    await until("the keyboard can leave it", async () => page.getByRole("button", { name: "End" }).evaluate((button) => button === document.activeElement));
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Plain" }).click();
    await page.getByRole("button", { name: "Start" }).click();
    const line = page.getByLabel("A line to say");
    await until("it is open", async () => line.isEnabled());
    await line.fill("echo $((6 * 7)) is said");
    await line.press("Enter");
    await page.getByRole("log", { name: "What it says" }).getByText("42 is said").waitFor({ timeout: 30_000 });
    await page.getByRole("button", { name: "End" }).click();
    await page.getByRole("button", { name: "Terminal" }).click();
  });

  test("what pods use stands beside what they may, with its past", async () => {
    await own.go(place("workload", { ns: "vote", kind: "apps/v1/deployments", in: "vote", name: "voting" }));
    const use = own.page.getByRole("region", { name: "Use" });
    await use.getByText(/^of 256 MiB$/).waitFor({ timeout: 20_000 });
    await use.getByRole("figure").first().waitFor({ timeout: 20_000 });
    assert.equal(await use.getByRole("figure").count(), 4);
  });

  test("who may not, cannot; and the API refuses him, too", async () => {
    const read = ["get", "list", "watch"];
    const token = await world.token("reader", [
      { apiGroups: ["", "apps", "weft.dev", "gateway.networking.k8s.io", "batch"], resources: ["*"], verbs: read },
      { apiGroups: ["mesh.weft.dev"], resources: ["*"], verbs: read },
    ]);
    const context = await world.context();
    const page = await context.newPage();
    await page.goto(`${world.api}/dashboard/${place("workload", { ns: "vote", kind: "apps/v1/deployments", in: "vote", name: "web" })}`);
    await page.getByLabel("A bearer token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    // The place is kept.
    await page.getByRole("heading", { name: "web" }).waitFor();
    for (const name of ["Scale…", "Restart", "Delete"]) {
      const button = page.getByRole("button", { name, exact: true });
      await until("it says why", async () => /^you may not/.test((await button.getAttribute("title")) ?? ""));
      assert.equal(await button.isDisabled(), true, name);
    }
    const refused = await page.evaluate(async () => {
      const answer = await fetch("/apis/apps/v1/namespaces/vote/deployments/web", { method: "DELETE", headers: { "Weft-Session": "1" } });
      return [answer.status, ((await answer.json()) as { message: string }).message] as const;
    });
    assert.equal(refused[0], 403);
    assert.match(refused[1], /system:serviceaccount:vote:reader.* cannot delete resource "deployments"/);
    // What he may not see at all is told in the API's words.
    await page.goto(`${world.api}/dashboard/${place("nodes", { ns: "vote" })}`);
    await page.getByText(/cannot list resource "nodes"/).waitFor();
    await context.close();
  });

  test("a request of another origin changes nothing", async () => {
    const cookies = await own.context.cookies();
    const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
    assert.ok(cookies.every((one) => one.httpOnly && one.secure && one.sameSite === "Strict"), "no script reads it, no other site sends it");
    const body = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "foreign" } };
    const path = "/api/v1/namespaces/vote/configmaps";
    const foreign: Record<string, string>[] = [{ Origin: "https://evil.example" }, { "Sec-Fetch-Site": "cross-site" }, { Origin: "null" }];
    for (const headers of foreign) assert.equal((await world.ask("POST", path, body, { ...headers, Cookie: cookie, "Weft-Session": "1" }, "nobody")).status, 403, JSON.stringify(headers));
    assert.equal((await world.ask("GET", `${path}/foreign`)).status, 404);
  });

  test("what others wrote is shown as text", async () => {
    const hostile = '<img src=x onerror="document.title=1">\u202egnp.exe\u0007';
    await world.apply("/api/v1/namespaces/vote/configmaps", { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "hostile", annotations: { note: hostile } }, data: { text: hostile } } as never);
    await own.go(place("object", { kind: "v1/configmaps", in: "vote", name: "hostile" }));
    await own.page.getByText("⟨U+202E⟩gnp.exe␇").first().waitFor();
    assert.equal(await own.page.locator("main img").count(), 0);
    assert.match(await own.page.title(), /^hostile/);
  });

  test("everything is reached by the keyboard", async () => {
    await own.go("?ns=vote");
    await own.page.keyboard.press("?");
    await own.page.getByRole("dialog", { name: "Keyboard" }).waitFor();
    await own.page.keyboard.press("Escape");
    await own.page.getByRole("dialog").waitFor({ state: "detached" });
    await own.page.keyboard.press("g");
    await own.page.keyboard.press("w");
    await own.page.getByRole("heading", { name: "Workloads" }).waitFor();
    await own.page.locator("tr[data-at]").first().waitFor();
    await own.page.keyboard.press("/");
    assert.equal(await own.page.evaluate(() => document.activeElement?.hasAttribute("data-find")), true);
    await own.page.keyboard.type("emoji");
    await until("one is left", async () => (await own.page.locator("tr[data-at]").count()) === 1);
    await own.page.keyboard.press("Tab");
    await own.page.evaluate(() => (document.activeElement as HTMLElement).blur());
    await own.page.keyboard.press("j");
    await own.page.keyboard.press("Enter");
    await own.page.getByRole("heading", { name: "emoji" }).waitFor();
    await own.page.keyboard.press("Control+k");
    await own.page.getByRole("combobox", { name: /^Name of a page/ }).fill("traffic");
    await own.page.keyboard.press("Enter");
    await own.page.locator("[data-node]").first().waitFor();
    await own.page.locator('[data-node="w:vote/web"]').focus();
    await own.page.keyboard.press("Enter");
    await own.page.getByRole("complementary", { name: "About web" }).waitFor();
    await own.page.keyboard.press("Tab");
  });

  test("a stream that is cut is told, and goes on by itself", async () => {
    const wire = new Wire(Number(new URL(world.api).port));
    await wire.start();
    const context = await world.context();
    const page = await context.newPage();
    await page.goto(world.link("traffic?ns=vote").replace(world.api, wire.url));
    const flow = page.locator(".flow");
    await until("it is live", async () => (await flow.textContent()) === "live", 15_000);
    await until("the graph is there", async () => (await page.locator("[data-arrow]").count()) === 3, 5000);
    wire.cut();
    await until("the page says so", async () => /^cut/.test((await flow.textContent()) ?? ""), 10_000);
    await page.waitForTimeout(process.env["DASHBOARD_WHOLE"] === undefined ? 3000 : 30_000);
    assert.equal(await page.locator("[data-arrow]").count(), 3, "what was known stays");
    wire.mend();
    await until("it is live again", async () => (await flow.textContent()) === "live", 15_000);
    await context.close();
    wire.end();
  });

  // Each scheme with one of the widths: pages are the same code in both.
  for (const [colorScheme, width, height] of [["light", 1440, 900], ["dark", 390, 844]] as const) {
    test(`no page asks elsewhere, complains, is too wide, or keeps anybody out: ${colorScheme}, ${width} pixels`, { timeout: 240_000 }, async () => {
      const watched = await world.page({ colorScheme, viewport: { width, height } });
      const { page } = watched;
      const found: string[] = [];
      for (const [name, at] of await places(world)) {
        await watched.go(at);
        await watched.settled();
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (wide > 0) found.push(`${name} is ${wide} pixels too wide`);
        await page.evaluate(AXE);
        const violations = await page.evaluate(async (tags) => {
          const { axe } = window as unknown as { axe: { run(context: Document, options: object): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> } };
          const result = await axe.run(document, { runOnly: { type: "tag", values: tags }, resultTypes: ["violations"] });
          return result.violations.flatMap((one) => one.nodes.slice(0, 3).map((node) => `${one.id}: ${node.html.slice(0, 160)} ${node.failureSummary.replace(/\s+/g, " ").slice(0, 240)}`));
        }, TAGS);
        found.push(...violations.map((one) => `${name}: ${one}`));
      }
      assert.deepEqual(found, []);
      assert.deepEqual(watched.complaints, []);
      assert.deepEqual([...watched.origins], [new URL(world.api).origin]);
      await watched.context.close();
    });
  }

  test("pages that all went to complained of nothing", () => assert.deepEqual(own.complaints, []));
});
