/**
 * A real cluster with the sample application under load, and a browser that looks at it.
 *
 * ```text
 * WEFT_PROGRAM   the program                       ../target/debug/weft
 * WEFT_GUESTS    where the samples' components are  ../target/guests
 * WEFT_PAGE      a folder whose page is shown        the one in the program
 * CHROMIUM       the browser                       of PATH: chromium, chromium-browser, google-chrome
 * ```
 * Invariants: everything that is started is ended; ports are the system's choice; nothing but this machine is reached.
 */

import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { accessSync, constants, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, extname, join, resolve } from "node:path";

import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from "playwright-core";

const PROGRAM = resolve(process.env["WEFT_PROGRAM"] ?? "../target/debug/weft");
const GUESTS = resolve(process.env["WEFT_GUESTS"] ?? "../target/guests");
const PAGE = process.env["WEFT_PAGE"];
const READY_MILLIS_MAX = 120_000;
/** How long a page may take until nothing of it is awaited. */
const SETTLED_MILLIS_MAX = 20_000;
const TYPES: Readonly<Record<string, string>> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

/** The browser's program, or why there is none. */
export function browserProgram(): { path: string } | { missing: string } {
  const named = process.env["CHROMIUM"];
  if (named !== undefined) return { path: named };
  for (const folder of (process.env["PATH"] ?? "").split(delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return { path };
      } catch {
        // Not here.
      }
    }
  }
  return { missing: "no Chromium on PATH: install Debian's package `chromium`" };
}

/** Why these tests cannot run here; nothing where they can. */
export function missing(): string | undefined {
  const browser = browserProgram();
  if ("missing" in browser) return browser.missing;
  if (!existsSync(PROGRAM)) return `no program at ${PROGRAM}: \`cargo build --workspace\``;
  if (!existsSync(join(GUESTS, "web.wasm"))) return `no components at ${GUESTS}: \`cargo xtask guests\``;
  return undefined;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: unknown;
}

interface Credentials {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

export class World {
  browser: Browser | undefined;
  api = "";
  servers: string[] = [];
  kubeconfig = "";
  readonly folder = mkdtempSync(join(tmpdir(), "weft-dashboard-"));
  #up: ChildProcess | undefined;
  #credentials: Credentials | undefined;

  /** A cluster of so many servers and nodes, ready to be asked. */
  async start(servers: number, nodes: number): Promise<void> {
    const data = join(this.folder, "data");
    const up = spawn(PROGRAM, ["up", "--output", "json", "--servers", `${servers}`, "--nodes", `${nodes}`, "--data-dir", data, "--api-port", "0", "--gateway-port", "0", "--exit-with-parent"], { stdio: ["pipe", "pipe", "pipe"], detached: true });
    this.#up = up;
    let said = "";
    let complained = "";
    up.stderr.on("data", (chunk: Buffer) => (complained = (complained + chunk.toString()).slice(-4000)));
    const ready = new Promise<void>((done, failed) => {
      const timer = setTimeout(() => failed(new Error(`weft up was not ready in time: ${complained}`)), READY_MILLIS_MAX);
      up.stdout.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        if (!said.includes("\n")) return;
        clearTimeout(timer);
        done();
      });
      up.on("exit", (code) => failed(new Error(`weft up ended with ${code}: ${complained}`)));
    });
    await ready;
    const told = JSON.parse(said.slice(0, said.indexOf("\n"))) as { api: string; servers: string[]; kubeconfig: string };
    this.api = told.api;
    this.servers = told.servers;
    this.kubeconfig = told.kubeconfig;
    const config = readFileSync(this.kubeconfig, "utf8");
    const part = (name: string) => Buffer.from(new RegExp(`${name}: *"?([A-Za-z0-9+/=]+)`).exec(config)?.[1] ?? "", "base64");
    this.#credentials = { ca: part("certificate-authority-data"), cert: part("client-certificate-data"), key: part("client-key-data") };
    await this.open();
  }

  /** The browser, if it is not open yet. */
  async open(): Promise<void> {
    if (this.browser !== undefined) return;
    const browser = browserProgram();
    if ("missing" in browser) throw new Error(browser.missing);
    const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
    // A page that did not come from this machine's own address may not reach it, as far as the browser sees.
    if (PAGE !== undefined) quiet.push("--disable-features=LocalNetworkAccessChecks");
    this.browser = await chromium.launch({ executablePath: browser.path, args: quiet });
  }

  weft(args: readonly string[], input?: string): string {
    const ran = spawnSync(PROGRAM, [...args], { env: { ...process.env, WEFT_KUBECONFIG: this.kubeconfig, KUBECONFIG: this.kubeconfig }, input, encoding: "utf8", timeout: 60_000 });
    if (ran.status !== 0) throw new Error(`weft ${args.join(" ")}: ${ran.stderr}`);
    return ran.stdout;
  }

  /** The sample application, whose bot votes so many times a second. */
  async vote(rate: number): Promise<void> {
    for (const name of ["web", "emoji", "voting", "bot"]) this.weft(["push", join(GUESTS, `${name}.wasm`), `vote/${name}:0.1`]);
    const manifest = readFileSync(resolve("../sample-apps/vote/weft.yaml"), "utf8").replace('{name: RATE, value: "2"}', `{name: RATE, value: "${rate}"}`);
    this.weft(["apply", "-f", "-"], manifest);
    await until("the sample runs", async () => {
      const found = (await this.ask("GET", "/apis/apps/v1/namespaces/vote/deployments")).body as { items: { spec: { replicas: number }; status?: { readyReplicas?: number } }[] };
      return found.items.length === 4 && found.items.every((one) => one.status?.readyReplicas === one.spec.replicas);
    }, 90_000);
  }

  /** Asks the API as the cluster's administrator. */
  ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}, as: "admin" | "nobody" = "admin", server = this.api): Promise<Answer> {
    const url = new URL(path, server);
    const credentials = as === "admin" ? this.#credentials : { ca: this.#credentials?.ca };
    const text = body === undefined ? undefined : JSON.stringify(body);
    const said = text === undefined ? headers : { "Content-Type": method === "PATCH" ? "application/merge-patch+json" : "application/json", ...headers };
    return new Promise((done, failed) => {
      const asked = httpsRequest(url, { method, headers: said, rejectUnauthorized: false, ...credentials }, (answer) => {
        let all = "";
        answer.on("data", (chunk: Buffer) => (all += chunk.toString()));
        answer.on("end", () => {
          let body: unknown = all;
          try {
            body = JSON.parse(all);
          } catch {
            // A text.
          }
          done({ status: answer.statusCode ?? 0, headers: answer.headers, body });
        });
      });
      asked.on("error", failed);
      asked.setTimeout(30_000, () => asked.destroy(new Error(`${method} ${path} took too long`)));
      asked.end(text);
    });
  }

  /** Makes an object, or takes the place of one that is there. */
  async apply(path: string, body: { metadata: { name: string } }): Promise<void> {
    const answer = await this.ask("PATCH", `${path}/${body.metadata.name}?fieldManager=tests&force=true`, body, { "Content-Type": "application/apply-patch+yaml" });
    if (answer.status >= 300) throw new Error(`${path}: ${JSON.stringify(answer.body)}`);
  }

  link(place = ""): string {
    const told = JSON.parse(this.weft(["dash", ...(place === "" ? [] : [place]), "--output", "json"])) as { url: string };
    return told.url;
  }

  /** A token of a ServiceAccount that may do what these rules say, in namespace `vote`. */
  async token(name: string, rules: readonly object[]): Promise<string> {
    const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/vote";
    await this.apply("/api/v1/namespaces/vote/serviceaccounts", { apiVersion: "v1", kind: "ServiceAccount", metadata: { name } } as never);
    await this.apply(`${rbac}/roles`, { apiVersion: "rbac.authorization.k8s.io/v1", kind: "Role", metadata: { name }, rules } as never);
    await this.apply(`${rbac}/rolebindings`, {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "RoleBinding",
      metadata: { name },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name },
      subjects: [{ kind: "ServiceAccount", name, namespace: "vote" }],
    } as never);
    const answer = await this.ask("POST", `/api/v1/namespaces/vote/serviceaccounts/${name}/token`, { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {} });
    return (answer.body as { status: { token: string } }).status.token;
  }

  async context(options: BrowserContextOptions = {}): Promise<BrowserContext> {
    if (this.browser === undefined) throw new Error("the browser is not open");
    const context = await this.browser.newContext({ viewport: { width: 1440, height: 900 }, ignoreHTTPSErrors: true, ...options });
    if (PAGE !== undefined) {
      // The program's own answers tell what a page may do; only what is in them is another one's.
      await context.route(/\/dashboard\/(?!session|links|oidc)/, async (route) => {
        const path = new URL(route.request().url()).pathname.slice("/dashboard/".length);
        const file = join(PAGE, extname(path) === "" ? "index.html" : path);
        const headers = { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'" };
        await route.fulfill({ path: file, headers });
      });
    }
    return context;
  }

  /** A page of its own, signed in as the administrator. */
  async page(options: BrowserContextOptions = {}): Promise<Watched> {
    const context = await this.context(options);
    const page = await context.newPage();
    const watched = new Watched(this, context, page);
    await page.goto(this.link());
    await page.waitForSelector("main");
    return watched;
  }

  async end(): Promise<void> {
    await this.browser?.close();
    const up = this.#up;
    if (up?.pid !== undefined && up.exitCode === null) {
      const ended = new Promise<void>((done) => up.on("exit", () => done()));
      // Nothing of it is to last, so nobody is waited for.
      for (const pid of [up.pid, ...descendants(up.pid)]) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It has ended.
        }
      }
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A page whose complaints are kept, and every address that it asked. */
export class Watched {
  readonly complaints: string[] = [];
  readonly origins = new Set<string>();

  constructor(
    readonly world: World,
    readonly context: BrowserContext,
    readonly page: Page,
  ) {
    page.on("console", (message) => {
      const { url } = message.location();
      // What the API refuses is told by the browser, too; the page shows it.
      if (message.type() === "error" && !/Failed to load resource/.test(message.text())) this.complaints.push(`${message.text()} ${url}`);
    });
    page.on("pageerror", (error) => this.complaints.push(error.stack ?? String(error)));
    page.on("request", (request) => this.origins.add(new URL(request.url()).origin));
  }

  async go(place: string): Promise<void> {
    await this.page.goto(`${this.world.api}/dashboard/${place}`);
    await this.page.waitForSelector("main h1", { state: "attached" });
  }

  /** Waits until the page has all that it asked for at first, and has drawn it. */
  async settled(): Promise<void> {
    await this.page.waitForFunction(() => document.querySelector("main h1") !== null && document.querySelector("main .loading") === null, undefined, { timeout: SETTLED_MILLIS_MAX });
    await this.page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  }

  arrow(from: string, to: string) {
    return this.page.locator(`[data-arrow="w:vote/${from}>w:vote/${to}"]`);
  }
}

/** A way to a server that can be cut: what was under way breaks off, and nobody gets through until it is mended. */
export class Wire {
  url = "";
  #open = true;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((socket) => {
    if (!this.#open) {
      socket.destroy();
      return;
    }
    const to = connect(this.port, "127.0.0.1");
    for (const [one, other] of [[socket, to], [to, socket]] as const) {
      this.#sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        this.#sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });

  constructor(readonly port: number) {}

  async start(): Promise<void> {
    await new Promise<void>((done) => this.#server.listen(0, "127.0.0.1", done));
    const address = this.#server.address();
    this.url = `https://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  }

  cut(): void {
    this.#open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#open = true;
  }

  end(): void {
    this.cut();
    this.#server.close();
  }
}

/** What a process has started, and what that has. */
function descendants(of: number): number[] {
  const parents = readdirSync("/proc").flatMap((name): [number, number][] => {
    if (!/^\d+$/.test(name)) return [];
    try {
      // The program's name, which may have anything in it, ends with the last parenthesis; its state comes next, then its parent.
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      return [[Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])]];
    } catch {
      return [];
    }
  });
  const found = [of];
  for (const one of found) found.push(...parents.filter(([, parent]) => parent === one).map(([pid]) => pid));
  return found.slice(1);
}

/** Waits until something is so. */
export async function until(what: string, is: () => Promise<boolean>, millis = 10_000): Promise<number> {
  const began = Date.now();
  for (;;) {
    if (await is()) return Date.now() - began;
    if (Date.now() - began > millis) throw new Error(`not in ${millis} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

export function place(page: string, query: Record<string, string>): string {
  return `${page}?${new URLSearchParams(query).toString()}`;
}

/** Every page, with what it is shown of. */
export async function places(world: World): Promise<[string, string][]> {
  const pods = (await world.ask("GET", "/api/v1/namespaces/vote/pods?labelSelector=app%3Dweb&limit=1")).body as { items: { metadata: { name: string } }[] };
  const pod = pods.items[0]?.metadata.name ?? "";
  const workload = { kind: "apps/v1/deployments", in: "vote", name: "web" };
  return [
    ["overview", "?ns="],
    ["traffic", place("traffic", { ns: "vote" })],
    ["traffic-panel", place("traffic", { ns: "vote", pick: "w:vote/web" })],
    ["traffic-services", place("traffic", { ns: "vote", mode: "services" })],
    ["traffic-replay", place("traffic", { ns: "vote", replay: "1" })],
    ["workloads", place("workloads", { ns: "" })],
    ["workload", place("workload", workload)],
    ["workload-revisions", place("workload", { ...workload, tab: "revisions" })],
    ["workload-applied", place("workload", { ...workload, tab: "applied" })],
    ["pod", place("pod", { in: "vote", name: pod })],
    ["console", place("pod", { in: "vote", name: pod, tab: "console" })],
    ["rollouts", place("rollouts", { ns: "" })],
    ["traces", place("traces", { ns: "" })],
    ["tap", place("tap", { ns: "" })],
    ["logs", place("logs", { in: "vote", workload: "bot" })],
    ["faults", place("faults", { ns: "" })],
    ["nodes", place("nodes", { ns: "" })],
    ["node", place("node", { name: "node-1" })],
    ["kinds", place("kinds", { ns: "" })],
    ["objects", place("objects", { ns: "", kind: "v1/pods" })],
    ["object", place("object", { kind: "apps/v1/deployments", in: "vote", name: "web" })],
    ["yaml", place("object", { kind: "apps/v1/deployments", in: "vote", name: "web", tab: "yaml" })],
    ["create", place("create", { ns: "vote" })],
  ];
}
