/** What objects say of themselves, in words. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { allows, rulesIn, type Action } from "../../src/kube/access";
import { keyOf, selects, text, type Item } from "../../src/kube/read";
import { DEPLOYMENTS, listPath, NODES, objectPath, PODS } from "../../src/kube/resource";
import { ended, frame } from "../../src/model/channels";
import { level, logLine, sieve, traceIn } from "../../src/model/log";
import { score } from "../../src/model/match";
import { revisionsOf } from "../../src/model/revision";
import { fieldsOf, pathAt, schemaAt, typeOf } from "../../src/model/schema";
import { spanFailed, waterfall } from "../../src/model/trace";
import { obstacles, placement, podWord, workloadWord } from "../../src/model/workload";

const object = (more: object): Item => ({ metadata: { name: "web", namespace: "shop", generation: 2 }, ...more }) as unknown as Item;

test("a workload is ready, on its way, or not", () => {
  const deployment = (replicas: number, status: object) => workloadWord(object({ spec: { replicas }, status: { observedGeneration: 2, ...status } }), "Deployment");
  for (const [said, expected] of [
    [deployment(2, { updatedReplicas: 2, readyReplicas: 2 }), "ok Ready"],
    [deployment(2, { updatedReplicas: 1, readyReplicas: 2 }), "busy Updating"],
    [deployment(2, { observedGeneration: 1, updatedReplicas: 2, readyReplicas: 2 }), "busy Updating"],
    [deployment(0, {}), "off Scaled to 0"],
    [deployment(2, { updatedReplicas: 2, conditions: [{ type: "Available", status: "False" }] }), "bad Not ready"],
    [deployment(2, { conditions: [{ type: "Progressing", status: "False", message: "too long" }] }), "bad Stuck"],
    [workloadWord(object({ status: { phase: "RolledBack", message: "p95" } }), "Rollout"), "bad RolledBack"],
    [workloadWord(object({ spec: { suspend: true } }), "CronJob"), "off Suspended"],
    [workloadWord(object({ status: "nonsense", spec: 3 }), "Deployment"), "busy Updating"],
  ] as const)
    assert.equal(`${said.standing} ${said.word}`, expected);
});

test("a pod says what it waits for", () => {
  const pod = (status: object, spec: object = { containers: [{ name: "a" }] }) => podWord(object({ spec, status }));
  for (const [said, expected] of [
    [pod({ phase: "Running", containerStatuses: [{ ready: true, restartCount: 3 }] }), "ok Running 1/1 3"],
    [pod({ phase: "Running", containerStatuses: [{ ready: false, restartCount: 9, state: { waiting: { reason: "CrashLoopBackOff", message: "again" } } }] }), "bad CrashLoopBackOff 0/1 9"],
    [pod({ phase: "Pending", containerStatuses: [{ state: { waiting: { reason: "ContainerCreating" } } }] }), "busy Pending 0/1 0"],
    [pod({ phase: "Pending", conditions: [{ type: "PodScheduled", status: "False", reason: "Unschedulable" }] }), "bad Unschedulable 0/1 0"],
    [pod({ phase: "Succeeded" }), "off Completed 0/1 0"],
    [pod({ phase: "Failed", reason: "Evicted" }), "bad Evicted 0/1 0"],
  ] as const)
    assert.equal(`${said.standing} ${said.word} ${said.ready}/${said.containers} ${said.restarts}`, expected);
});

test("why a pod does not run, in everybody's words and once", () => {
  const message = "0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
  const pod = object({ status: { conditions: [{ type: "PodScheduled", status: "False", reason: "Unschedulable", message }] } });
  const event = object({ type: "Warning", reason: "FailedScheduling", message, source: { component: "scheduler" } });
  assert.deepEqual(obstacles(pod, [event, object({ type: "Normal", message: "fine" })]).map((one) => one.from), ["condition PodScheduled"]);
  assert.deepEqual(placement(message), [
    { nodes: 1, reason: "node(s) had untolerated taint {a: b}" },
    { nodes: 2, reason: "Insufficient cpu" },
  ]);
  assert.deepEqual(placement("something else"), []);
});

test("rules are read as the server reads them", () => {
  const rules = rulesIn({
    status: {
      resourceRules: [
        { verbs: ["get", "list"], apiGroups: [""], resources: ["pods", "pods/log"] },
        { verbs: ["*"], apiGroups: ["apps"], resources: ["*"] },
        { verbs: ["patch"], apiGroups: [""], resources: ["configmaps"], resourceNames: ["one"] },
        { verbs: ["update"], apiGroups: [""], resources: ["*/scale"] },
      ],
    },
  });
  const asked = (verb: string, group: string, resource: string, name?: string): Action => ({ verb, group, resource, namespace: "a", name });
  for (const [action, expected] of [
    [asked("get", "", "pods"), true],
    [asked("delete", "", "pods"), false],
    [asked("get", "", "pods/log"), true],
    [asked("create", "", "pods/exec"), false],
    [asked("delete", "apps", "deployments"), true],
    [asked("patch", "apps", "deployments/scale"), true],
    [asked("patch", "", "configmaps", "one"), true],
    [asked("patch", "", "configmaps", "two"), false],
    [asked("patch", "", "configmaps"), false],
    [asked("update", "", "replicationcontrollers/scale"), true],
  ] as const)
    assert.equal(allows(rules, action), expected, `${action.verb} ${action.resource} ${action.name ?? ""}`);
});

test("paths are those of the API, and names cannot leave theirs", () => {
  assert.equal(listPath(PODS), "/api/v1/pods");
  assert.equal(listPath(DEPLOYMENTS, "a"), "/apis/apps/v1/namespaces/a/deployments");
  assert.equal(objectPath(NODES, "a", "n"), "/api/v1/nodes/n");
  assert.equal(objectPath(PODS, "../b", "x/../y", "log"), "/api/v1/namespaces/..%2Fb/pods/x%2F..%2Fy/log");
  assert.equal(keyOf(object({})), "shop/web");
  assert.equal(text({ a: { b: 1 } }, "a", "b"), "");
  assert.equal(text({}, "__proto__", "constructor"), "");
  assert.equal(selects({}, { a: "b" }), false);
});

test("a line of a log says its time, its level and its trace", () => {
  const line = logLine("web-1", "web", "2026-01-02T03:04:05.678901Z WARN slow 4bf92f3577b34da6a3ce929d0e0e4736");
  assert.deepEqual([line.text, line.level, line.trace, line.at], ["WARN slow 4bf92f3577b34da6a3ce929d0e0e4736", "warn", "4bf92f3577b34da6a3ce929d0e0e4736", Date.parse("2026-01-02T03:04:05.678Z")]);
  assert.equal(logLine("a", "b", "no time at all").text, "no time at all");
  for (const [said, expected] of [
    ["ERROR x", "error"],
    ['{"level":"error"}', "error"],
    ["thread 'main' panicked at", "error"],
    ["level=warn", "warn"],
    ["[info] up", "info"],
    ["the information desk", ""],
    ["DEBUG deep", "debug"],
  ] as const)
    assert.equal(level(said), expected, said);
  assert.equal(traceIn("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), "4bf92f3577b34da6a3ce929d0e0e4736");
  assert.equal(traceIn("a".repeat(40)), "");
  assert.equal(sieve({ find: "SLOW", level: "warn", regular: false }).passes(line), true);
  assert.equal(sieve({ find: "", level: "error", regular: false }).passes(line), false);
  assert.equal(sieve({ find: "s.ow", level: "", regular: true }).passes(line), true);
  const broken = sieve({ find: "(", level: "", regular: true });
  assert.ok(broken.error !== "" && broken.passes(line));
});

test("spans are below those they were made in, whatever they say of it", () => {
  const span = (spanID: string, parentID: string, began: string, durationMicros: number, code = 200) => ({ spanID, parentID, kind: "client", began, durationMicros, code, flags: "-", workload: { name: spanID } });
  const found = waterfall({
    spans: [span("b", "a", "2026-01-02T03:04:05.000100Z", 50), span("a", "", "2026-01-02T03:04:05.000000Z", 200, 503), span("c", "a", "2026-01-02T03:04:05.000050Z", 10), span("x", "y", "2026-01-02T03:04:05.000010Z", 5), span("y", "x", "2026-01-02T03:04:05.000020Z", 5)],
  });
  assert.deepEqual(found.rows.map((row) => `${"-".repeat(row.depth)}${row.span.id}`), ["a", "-c", "-b", "x", "y"]);
  assert.equal(found.micros, 200);
  assert.deepEqual(found.rows.map((row) => row.from), [0, 0.25, 0.5, 0.05, 0.1]);
  assert.equal(found.rows[0]?.failed, true);
  assert.equal(spanFailed({ code: 200, grpc: 14, flags: "-" }), true);
  assert.equal(spanFailed({ code: 0, grpc: undefined, flags: "DC" }), false);
  assert.equal(waterfall({}).rows.length, 0);
});

test("revisions are an owner's own, newest first, as he has them", () => {
  const owner = { ...object({}), metadata: { name: "web", uid: "1" } } as unknown as Item;
  const set = (name: string, revision: string, uid: string) =>
    ({
      metadata: { name, annotations: { "deployment.kubernetes.io/revision": revision }, labels: { "pod-template-hash": name }, ownerReferences: [{ controller: true, uid }] },
      spec: { template: { metadata: { labels: { app: "web", "pod-template-hash": name } } } },
    }) as unknown as Item;
  const found = revisionsOf(owner, [set("a", "1", "1"), set("b", "2", "1"), set("c", "9", "2")]);
  assert.deepEqual(found.map((one) => [one.number, one.hash]), [[2, "b"], [1, "a"]]);
  assert.deepEqual(found[0]?.template, { metadata: { labels: { app: "web" } } });
});

test("help is for the field that one is at", () => {
  const yaml = ["apiVersion: apps/v1", "kind: Deployment", "spec:", "  replicas: 2", "  template:", "    spec:", "      containers:", "      - name: web", "        image: a", "        ports:", "          - containerPort: 80"];
  for (const [row, expected] of [
    [1, "kind"],
    [3, "spec.replicas"],
    [7, "spec.template.spec.containers.0.name"],
    [8, "spec.template.spec.containers.0.image"],
    [10, "spec.template.spec.containers.0.ports.0.containerPort"],
  ] as const)
    assert.equal(pathAt(yaml, row).join("."), expected);
  const all = { Pod: { description: "a pod", properties: { name: { type: "string", description: "its name" } }, required: ["name"] } };
  const kind = { properties: { items: { type: "array", items: { allOf: [{ $ref: "#/components/schemas/Pod" }], description: "one" } }, map: { additionalProperties: { type: "integer" } } } };
  assert.equal(text(schemaAt(kind, all, ["items", "0", "name"]), "description"), "its name");
  assert.equal(typeOf(schemaAt(kind, all, ["map", "anything"])), "integer");
  assert.equal(schemaAt(kind, all, ["no", "such"]), undefined);
  assert.deepEqual(fieldsOf(schemaAt(kind, all, ["items", "0"]), all), [{ name: "name", type: "string", description: "its name", required: true }]);
});

test("a session's end is told", () => {
  assert.deepEqual(ended('{"status":"Success"}'), { ok: true, code: 0, message: "" });
  assert.deepEqual(ended('{"status":"Failure","message":"m","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}'), { ok: false, code: 3, message: "m" });
  assert.equal(ended("nonsense").message, "nonsense");
  assert.deepEqual([...frame(0, "a\n")], [0, 97, 10]);
});

test("names are found by their letters", () => {
  assert.ok(score("vote/web", "web") > score("vote/w-e-b", "web"));
  assert.equal(score("vote", "x"), Number.NEGATIVE_INFINITY);
});
