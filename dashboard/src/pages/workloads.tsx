/** Everything that runs pods of a template, with how its calls go. Deployments are watched; the other kinds are asked for again now and then. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";

import { action } from "../kube/access";
import { at, text, type Item } from "../kube/read";
import { CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, nameOf, pathOf, ROLLOUTS, STATEFUL_SETS, type Resource } from "../kube/resource";
import { remove } from "../kube/write";
import { expression } from "../model/expression";
import { failed, NO_FIGURES, type Figures } from "../model/mesh";
import { images } from "../model/revision";
import { workloadWord } from "../model/workload";
import { figureCols } from "../ui/figures";
import { useFigures, useObjects, useTitle } from "../ui/hooks";
import { on } from "../ui/keys";
import { snapshot } from "../ui/live";
import { asked, go, href, namespace, say } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { soon } from "../ui/toast";
import { Age, Failure, Freshness, Link, Loading, Empty, Said, Standing } from "../ui/words";
import { may } from "../kube/access";

interface Row {
  readonly id: string;
  readonly resource: Resource;
  readonly object: Item;
  readonly figures: Figures;
}

const FIELDS = ["name", "ns", "kind", "state", "image", "calls", "errors", "p95"];
const EVERY_MILLIS = 10_000;

function template(object: Item): unknown {
  return at(object, "spec", "template") ?? at(object, "spec", "jobTemplate", "spec", "template");
}

export function Workloads(): JSX.Element {
  useTitle("Workloads");
  useFigures();
  const ns = namespace.value;
  const states = [
    [DEPLOYMENTS, useObjects({ resource: DEPLOYMENTS, namespace: ns })],
    [ROLLOUTS, useObjects({ resource: ROLLOUTS, namespace: ns, every: EVERY_MILLIS })],
    [STATEFUL_SETS, useObjects({ resource: STATEFUL_SETS, namespace: ns, every: EVERY_MILLIS })],
    [DAEMON_SETS, useObjects({ resource: DAEMON_SETS, namespace: ns, every: EVERY_MILLIS })],
    [CRON_JOBS, useObjects({ resource: CRON_JOBS, namespace: ns, every: EVERY_MILLIS })],
    [JOBS, useObjects({ resource: JOBS, namespace: ns, every: EVERY_MILLIS })],
  ] as const;
  const find = asked("find");
  const faulty = useSignal(asked("faulty") !== "");
  useEffect(() => on("z", () => (faulty.value = !faulty.value)), []);
  const figures = snapshot.value.workloads;
  const finds = expression(find, FIELDS);
  const rows: Row[] = [];
  for (const [resource, state] of states) {
    for (const { object, key } of state.rows) {
      // What a CronJob makes is shown with it.
      if (resource === JOBS && (object.metadata.ownerReferences ?? []).some((owner) => owner.kind === "CronJob")) continue;
      const row = { id: `${resource.kind} ${key}`, resource, object, figures: figures.get(key) ?? NO_FIGURES };
      const word = workloadWord(object, resource.kind);
      if (faulty.value && word.standing !== "bad" && !(word.standing === "busy" && word.ready < word.wanted) && failed(row.figures) < 0.01) continue;
      const facts = {
        name: object.metadata.name,
        ns: object.metadata.namespace ?? "",
        kind: resource.kind,
        state: word.word,
        image: images(template(object)),
        calls: row.figures.calls,
        errors: failed(row.figures) * 100,
        p95: row.figures.p95 / 1000,
      };
      if (find === "" || finds.test(facts)) rows.push(row);
    }
  }
  const cols = useMemo(columns, []);
  const first = states[0][1];
  const refused = states.every(([, state]) => state.status === "failed");
  return (
    <>
      <div class="page-head">
        <h1>Workloads</h1>
        <div class="tools">
          <label class="expression">
            <span>Find</span>
            <input data-find="" value={find} placeholder="name, or errors > 1" spellcheck={false} aria-invalid={finds.error !== ""} title={finds.error || FIELDS.join(", ")} onInput={(event) => say({ find: event.currentTarget.value })} />
          </label>
          <label class="check">
            <input type="checkbox" checked={faulty.value} onChange={(event) => (faulty.value = event.currentTarget.checked)} /> Faulty only
          </label>
          <Freshness state={first} />
          <Link page="create" class="button">
            Create&hellip;
          </Link>
        </div>
      </div>
      {refused && first.error !== undefined ? (
        <Failure error={first.error} />
      ) : first.status === "loading" && rows.length === 0 ? (
        <Loading what="workloads" />
      ) : rows.length === 0 ? (
        <Empty title={find !== "" || faulty.value ? "None of these" : "No workloads"}>{find !== "" || faulty.value ? "Nothing here fits what is asked for." : "Apply a manifest, or create one from YAML."}</Empty>
      ) : (
        <Table
          label="Workloads"
          rows={rows}
          cols={cols}
          id={(row) => row.id}
          sort="name"
          address={address}
          keys={{
            l: (row) => go(href("logs", { in: row.object.metadata.namespace, workload: row.object.metadata.name })),
            y: (row) => go(href("object", { kind: nameOf(row.resource), in: row.object.metadata.namespace, name: row.object.metadata.name, tab: "yaml" })),
            "ctrl-d": (row) => {
              const { name, namespace: where } = row.object.metadata;
              if (may(action("delete", row.resource, where, name)) === true) soon(`Deleting ${row.resource.kind} ${name}`, `${row.resource.kind} ${name} is deleted`, () => remove(pathOf(row.resource, row.object)));
            },
          }}
        />
      )}
    </>
  );
}

function address(row: Row): string {
  return href("workload", { kind: nameOf(row.resource), in: row.object.metadata.namespace, name: row.object.metadata.name });
}

function columns(): Col<Row>[] {
  return [
    {
      id: "state",
      title: "State",
      width: 128,
      by: (row) => workloadWord(row.object, row.resource.kind).standing,
      cell: (row) => {
        const said = workloadWord(row.object, row.resource.kind);
        return <Standing is={said.standing} word={said.word} why={said.why} />;
      },
    },
    {
      id: "name",
      title: "Name",
      by: (row) => row.object.metadata.name,
      cell: (row) => (
        <a href={address(row)}>
          <Said text={row.object.metadata.name} />
        </a>
      ),
    },
    { id: "kind", title: "Kind", width: 118, spare: true, by: (row) => row.resource.kind, cell: (row) => row.resource.kind },
    { id: "namespace", title: "Namespace", width: 130, spare: true, by: (row) => row.object.metadata.namespace ?? "", cell: (row) => <Said text={row.object.metadata.namespace ?? ""} /> },
    {
      id: "ready",
      title: "Ready",
      width: 72,
      right: true,
      by: (row) => workloadWord(row.object, row.resource.kind).ready,
      cell: (row) => {
        const said = workloadWord(row.object, row.resource.kind);
        return said.wanted === 0 && said.ready === 0 ? <span class="muted">&ndash;</span> : `${said.ready}/${said.wanted}`;
      },
    },
    ...figureCols<Row>((row) => row.figures),
    { id: "images", title: "Image", spare: true, by: (row) => images(template(row.object)), cell: (row) => <Said text={images(template(row.object))} class="mono" /> },
    { id: "age", title: "Age", width: 84, right: true, spare: true, by: (row) => text(row.object, "metadata", "creationTimestamp"), cell: (row) => <Age time={row.object.metadata.creationTimestamp} /> },
  ];
}
