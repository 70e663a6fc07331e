/** From frames to a picture: edges, their health, what is drawn and where. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { around, badgesOf, byNamespace, graphOf, only, shape } from "../../src/model/graph";
import { curve, layout, NODE_HEIGHT, NODE_WIDTH } from "../../src/model/layout";
import { health, Mesh, policiesOf, snapshotOf, TOTALS_KEPT, type Figures } from "../../src/model/mesh";

const end = (workload: string, version = "", namespace = "shop") => ({ namespace, workload, version, principal: "" });
const edge = (id: number, from: object, to: object, service: string, security = "mutual_tls") => ({ id, source: from, destination: to, service: { namespace: "shop", name: service }, protocol: "http", security });

function frame(more: object): object {
  return { kind: "Frame", time: "2026-01-02T03:04:05Z", whole: false, skipped: 0, edges: { added: [], removed: [], figures: [] }, services: null, ...more };
}

const FIRST = frame({
  whole: true,
  edges: {
    added: [edge(1, end("web"), end("pay", "v1"), "pay"), edge(2, end("web"), end("pay", "v2"), "pay", "in_process"), edge(3, end("bot"), end("web"), "web")],
    removed: [],
    figures: [
      [1, 9, 0, 100, 200, 300, 0, 10, 9, 0],
      [2, 1, 1, 400, 500, 600, 0, 10, 1, 1],
      [3, 5, 0, 100, 200, 300, 0, 10, 5, 0],
    ],
  },
  services: [{ namespace: "shop", name: "pay", breaker: { ejected: 1, endpoints: 3 }, backends: [{ name: "pay-1", weight: 90 }, { name: "pay-2", weight: 10 }] }],
});

test("frames come to what is known of each edge", () => {
  const mesh = new Mesh();
  assert.equal(mesh.take({ kind: "Status" }), false);
  assert.equal(mesh.take(FIRST), true);
  assert.equal(mesh.snapshot.seen.length, 3);
  assert.equal(mesh.snapshot.policies.get("shop/pay")?.ejected, 1);
  // Policies that are not told again are as before; an edge without figures has none.
  mesh.take(frame({ edges: { added: [], removed: [3], figures: [[1, 4, 0, 1, 1, 1, 0, 0, 4, 0]] } }));
  assert.deepEqual(mesh.snapshot.seen.map(({ edge, figures }) => [edge.id, figures.calls]), [["1", 4], ["2", 0]]);
  assert.equal(mesh.snapshot.policies.get("shop/pay")?.backends.length, 2);
  mesh.take(frame({ whole: true, services: [] }));
  assert.equal(mesh.snapshot.seen.length, 0);
  assert.equal(mesh.snapshot.policies.size, 0);
});

test("sums are the server's where it has them, and as many as are kept", () => {
  const mesh = new Mesh();
  mesh.take({ ...FIRST, total: [15, 1, 150, 250, 350, 15, 1], workloads: [["shop", "pay", 10, 1, 110, 220, 330]] });
  assert.deepEqual([mesh.snapshot.total.calls, mesh.snapshot.total.p95], [15, 250]);
  assert.equal(mesh.snapshot.workloads.get("shop/pay")?.p95, 220);
  assert.equal(mesh.snapshot.workloads.get("shop/web")?.p95, 200, "put together here where it is not told");
  for (let second = 0; second < TOTALS_KEPT + 5; second += 1) mesh.take(frame({}));
  assert.equal(mesh.totals.size, TOTALS_KEPT);
});

test("pods that did not change are told once", () => {
  const mesh = new Mesh();
  mesh.take(frame({ whole: true, pods: [["shop", "web-1", 5e6, 1000, 1], ["shop", "web-2", 6e6, 2000, 2]] }));
  mesh.take(frame({ pods: [["shop", "web-2", 7e6, 3000, 2]] }));
  assert.deepEqual([mesh.pods.get("shop/web-1")?.bytes, mesh.pods.get("shop/web-2")?.bytes, mesh.pods.get("shop/web-2")?.milliCores], [1000, 3000, 7]);
});

test("an edge fails by its last two seconds, where they say enough, and is degraded by its window", () => {
  const figures = (calls: number, failures: number, recent?: Figures["recent"]): Figures => ({ calls, failures, p50: 0, p95: 0, p99: 0, bytes: 0, recent });
  for (const [given, expected] of [
    [figures(0, 0), "idle"],
    [figures(10, 0), "ok"],
    [figures(100, 1), "degraded"],
    [figures(10, 1), "failing"],
    [figures(10, 0.2, { calls: 20, failures: 20 }), "failing"],
    [figures(10, 5, { calls: 20, failures: 0 }), "degraded"],
    [figures(10, 0, { calls: 20, failures: 0 }), "ok"],
    [figures(10, 5, { calls: 4, failures: 0 }), "failing"],
  ] as const)
    assert.equal(health(given), expected);
  const mesh = new Mesh();
  mesh.take(FIRST);
  const second = (calls: number, failures: number) => mesh.take(frame({ edges: { added: [], removed: [], figures: [[1, 9, 1, 1, 1, 1, 0, 0, calls, failures]] } }));
  const now = () => health(mesh.snapshot.seen[0]?.figures as Figures);
  assert.equal(now(), "ok");
  second(9, 9);
  assert.equal(now(), "failing");
  second(9, 0);
  assert.equal(now(), "failing", "nine calls do not say that it is over");
  second(9, 0);
  assert.equal(now(), "degraded", "it failed within the window");
  second(30, 30);
  assert.equal(now(), "failing");
  second(10, 0);
  assert.equal(now(), "degraded", "ten without a failure do");
});

test("a graph has what is asked for as its nodes", () => {
  const mesh = new Mesh();
  mesh.take(FIRST);
  const names = (mode: "workloads" | "versions" | "services") => graphOf(mesh.snapshot, mode).nodes.map((node) => node.id);
  assert.deepEqual(names("workloads"), ["w:shop/bot", "w:shop/pay", "w:shop/web"]);
  assert.deepEqual(names("versions"), ["w:shop/bot@", "w:shop/pay@v1", "w:shop/pay@v2", "w:shop/web@"]);
  assert.deepEqual(names("services"), ["s:shop/pay", "s:shop/web", "w:shop/bot", "w:shop/pay", "w:shop/web"]);
  const graph = graphOf(mesh.snapshot, "workloads");
  const pay = graph.arrows.find((arrow) => arrow.to === "w:shop/pay");
  assert.deepEqual([pay?.figures.calls, pay?.security, pay?.services], [10, "mixed", ["shop/pay"]]);
  assert.deepEqual(pay?.badges.map((badge) => badge.kind), ["breaker", "weight"]);
  assert.deepEqual(graph, graphOf(mesh.snapshot, "workloads"));
});

test("calls that reached nobody are drawn to who would have answered", () => {
  const nobody = edge(4, end("web"), end("", "", ""), "pay", "none");
  const both = snapshotOf({ items: [{ ...edge(1, end("web"), end("pay"), "pay"), callsPerSecond: 9 }, { ...nobody, callsPerSecond: 1, failuresPerSecond: 1 }] });
  const graph = graphOf(both, "workloads");
  assert.deepEqual(graph.arrows.map((arrow) => [arrow.id, arrow.figures.failures, arrow.security]), [["w:shop/web>w:shop/pay", 1, "mutual_tls"]]);
  const alone = graphOf(snapshotOf({ items: [nobody] }), "workloads");
  assert.deepEqual(alone.nodes.map((node) => [node.id, node.kind]), [["n:shop/pay", "nobody"], ["w:shop/web", "workload"]]);
});

test("faults and the rest are said, the most urgent first", () => {
  const said = policiesOf({ breaker: { ejected: 2, endpoints: 3 }, faults: [{ delayMillis: 500, delayPercent: 50, abort: 503, abortPercent: 10, until: 9 }], retries: { attempts: 2 }, timeoutMillis: 900 });
  assert.deepEqual(badgesOf(said).map((badge) => badge.text), [
    "breaker open: 2 of 3 endpoints left alone",
    "fault: 10 % of calls are answered 503, 50 % wait 500 ms",
    "tried again up to 2 times",
    "has 900 ms",
  ]);
  assert.deepEqual(badgesOf(undefined), []);
});

test("a part of a graph", () => {
  const chain = snapshotOf({ items: ["ab", "bc", "cd", "de"].map((pair, id) => edge(id, end(pair[0] ?? ""), end(pair[1] ?? ""), pair[1] ?? "")) });
  const graph = graphOf(chain, "workloads");
  const names = (of: { nodes: readonly { name: string }[] }) => of.nodes.map((node) => node.name).join("");
  assert.equal(names(around(graph, "w:shop/c", 1)), "bcd");
  assert.equal(names(around(graph, "w:shop/c", 9)), "abcde");
  const part = only(graph, (node) => node.name !== "c");
  assert.deepEqual([names(part), part.arrows.length], ["abde", 2]);
});

test("too many nodes are their namespaces", () => {
  const items = Array.from({ length: 40 }, (_, id) => ({ ...edge(id, end(`a${id}`, "", `ns${id % 4}`), end(`b${id}`, "", `ns${(id + 1) % 4}`), `s${id}`), callsPerSecond: 1, failuresPerSecond: id % 4 === 0 ? 1 : 0 }));
  const folded = byNamespace(graphOf(snapshotOf({ items }), "workloads"));
  assert.deepEqual(folded.nodes.map((node) => node.label), ["ns0", "ns1", "ns2", "ns3"]);
  assert.deepEqual(folded.arrows.map((arrow) => [arrow.id, arrow.figures.calls, arrow.health]), [
    ["ns:ns0>ns:ns1", 10, "failing"],
    ["ns:ns1>ns:ns2", 10, "ok"],
    ["ns:ns2>ns:ns3", 10, "ok"],
    ["ns:ns3>ns:ns0", 10, "ok"],
  ]);
});

test("nodes do not lie on each other, and equal shapes lie alike", () => {
  const items = Array.from({ length: 60 }, (_, id) => edge(id, end(`w${id % 13}`), end(`w${(id * 7 + 3) % 29}`), "s"));
  const graph = graphOf(snapshotOf({ items }), "workloads");
  for (const down of [false, true]) {
    const placed = layout(graph, down);
    const places = [...placed.nodes.values()];
    for (const [index, a] of places.entries())
      for (const b of places.slice(index + 1)) assert.ok(Math.abs(a.x - b.x) >= NODE_WIDTH || Math.abs(a.y - b.y) >= NODE_HEIGHT);
    assert.deepEqual(layout(graph, down), placed);
    assert.equal(placed.arrows.size, graph.arrows.length);
  }
  const busier = graphOf(snapshotOf({ items: items.map((item) => ({ ...item, callsPerSecond: 5 })) }), "workloads");
  assert.equal(shape(busier), shape(graph));
});

test("a line goes through its ends", () => {
  assert.equal(curve([{ x: 0, y: 0 }, { x: 10, y: 0 }]), "M0,0L10,0");
  assert.equal(curve([{ x: 0, y: 0 }, { x: 5, y: 5 }, { x: 10, y: 0 }]), "M0,0Q5,5 10,0");
  assert.equal(curve([]), "");
});
