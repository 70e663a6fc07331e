/** Slow and failed calls with all that came of them: a sample that the servers keep in memory, and each as a waterfall. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";

import { json, url } from "../kube/http";
import { list } from "../kube/read";
import { exact, micros } from "../model/format";
import { spanFailed, summaries, waterfall, type Row, type Summary } from "../model/trace";
import { useAnswer, useTitle } from "../ui/hooks";
import { meshPath } from "../ui/live";
import { asked, href, namespace, say } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { Ago, Empty, Facts, Failure, Link, Loading, Said, Section, Standing } from "../ui/words";

const EVERY_MILLIS = 2000;

export function Traces(): JSX.Element {
  const id = asked("id");
  return id === "" ? <Sample /> : <One id={id} />;
}

const COLS: readonly Col<Summary>[] = [
  { id: "state", title: "State", width: 92, by: (one) => (one.failed ? 0 : one.slow ? 1 : 2), cell: (one) => <Standing is={one.failed ? "bad" : one.slow ? "busy" : "ok"} word={one.failed ? "failed" : one.slow ? "slow" : "ok"} /> },
  {
    id: "call",
    title: "Call",
    by: (one) => one.root.path,
    cell: (one) => (
      <a href={href("traces", { id: one.id, in: one.namespace })}>
        <Said text={`${one.root.method} ${one.root.path}`} class="mono" />
      </a>
    ),
  },
  { id: "from", title: "From", width: 190, spare: true, by: (one) => one.root.workload, cell: (one) => <Said text={`${one.root.workload} \u2192 ${one.root.service || one.root.peer}`} /> },
  { id: "code", title: "Answer", width: 80, right: true, by: (one) => one.root.code, cell: (one) => (one.root.code === 0 ? "none" : one.root.code) },
  { id: "spans", title: "Spans", width: 70, right: true, spare: true, by: (one) => one.spans, cell: (one) => one.spans },
  { id: "took", title: "Took", width: 92, right: true, by: (one) => one.micros, cell: (one) => micros(one.micros) },
  { id: "began", title: "Began", width: 110, right: true, by: (one) => one.began, cell: (one) => <Ago time={one.began} /> },
];

function Sample(): JSX.Element {
  useTitle("Traces");
  const ns = namespace.value;
  const [find, only] = [asked("find"), asked("only")];
  const found = useAnswer((signal) => json(meshPath("traces", ns), { signal }), [ns], EVERY_MILLIS);
  const all = summaries(found.value);
  const shown = all.filter(
    (one) =>
      (only === "" || (only === "failed" ? one.failed : one.slow)) &&
      (find === "" || `${one.id} ${one.root.method} ${one.root.path} ${one.root.workload} ${one.services.join(" ")} ${one.root.code}`.toLowerCase().includes(find.toLowerCase())),
  );
  return (
    <>
      <div class="page-head">
        <h1>Traces</h1>
        <div class="tools">
          <label class="expression">
            <span>Find</span>
            <input data-find="" value={find} placeholder="path, workload, code, id" spellcheck={false} onInput={(event) => say({ find: event.currentTarget.value })} />
          </label>
          <label>
            <span>Show</span>
            <select value={only} onChange={(event) => say({ only: event.currentTarget.value })}>
              <option value="">slow and failed</option>
              <option value="failed">failed</option>
              <option value="slow">slow</option>
            </select>
          </label>
        </div>
      </div>
      {found.value === undefined ? (
        found.error === undefined ? (
          <Loading what="traces" />
        ) : (
          <Failure error={found.error} again={found.again} />
        )
      ) : shown.length === 0 ? (
        <Empty title={all.length === 0 ? "No slow or failed call yet" : "None of these"}>
          They are sampled while somebody looks. <Link page="tap">Tap</Link> shows every call as it ends.
        </Empty>
      ) : (
        <Table label="Traces" rows={shown} cols={COLS} id={(one) => one.id} sort="began" descending address={(one) => href("traces", { id: one.id, in: one.namespace })} />
      )}
    </>
  );
}

function One({ id }: { id: string }): JSX.Element {
  useTitle("Trace");
  const ns = asked("in") || namespace.value;
  const chosen = useSignal("");
  const found = useAnswer((signal) => json(url(meshPath("traces", namespace.value === "" ? "" : ns), { trace: id }), { signal }), [id, ns]);
  if (found.value === undefined) return found.error === undefined ? <Loading what="the trace" /> : <Failure error={found.error} again={found.again} />;
  if (list(found.value, "items").length === 0)
    return <Empty title="No longer kept">The sample keeps the newest slow and failed calls; this one has made room, or was never in it.</Empty>;
  const { rows, began, micros: whole } = waterfall(list(found.value, "items")[0]);
  const root = rows[0]?.span;
  const row = rows.find((row) => row.span.id === chosen.value);
  return (
    <>
      <p class="crumb">
        <Link page="traces">Traces</Link> / <Said text={id} class="mono" />
      </p>
      <h1>
        <Said text={root === undefined ? id : `${root.method} ${root.path}`} class="mono" />
      </h1>
      <p class="head-line">
        <Standing is={root !== undefined && spanFailed(root) ? "bad" : "ok"} word={root === undefined ? "no spans" : root.code === 0 ? "no answer" : String(root.code)} />
        <span>{micros(whole)}</span>
        <span class="muted">{exact(new Date(began / 1000).toISOString())}</span>
      </p>
      <div class="waterfall" role="tree" aria-label="Spans">
        {rows.map((row) => (
          <SpanRow key={row.span.id} row={row} chosen={row.span.id === chosen.value} choose={() => (chosen.value = chosen.value === row.span.id ? "" : row.span.id)} />
        ))}
      </div>
      {row === undefined ? null : (
        <Section title="This span">
          <Facts
            of={[
              ["Span", <Said text={row.span.id} class="mono" />],
              ["Kind", row.span.kind],
              ["Workload", <Said text={`${row.span.namespace}/${row.span.workload} ${row.span.version}`} />],
              ["Service", <Said text={row.span.service || row.span.peer} />],
              ["Node", <Said text={row.span.node} />],
              ["Call", <Said text={`${row.span.method} ${row.span.path}`} class="mono" />],
              ["Answer", `${row.span.code === 0 ? "none" : row.span.code}${row.span.grpc === undefined ? "" : `, grpc ${row.span.grpc}`}${row.span.flags === "-" || row.span.flags === "" ? "" : `, ${row.span.flags}`}`],
              ["Took", micros(row.span.micros)],
              ["Began", `${micros(row.span.began - began)} after the first`],
              ["Tried again", row.span.retries.map((retry) => `${retry.reason} at ${retry.address} after ${micros(retry.afterMicros)}`).join("; ")],
            ]}
          />
        </Section>
      )}
    </>
  );
}

function SpanRow({ row, chosen, choose }: { row: Row; chosen: boolean; choose: () => void }): JSX.Element {
  const { span } = row;
  const what = span.kind === "server" ? `${span.workload} serves` : `${span.workload} \u2192 ${span.service || span.peer}`;
  return (
    <div
      class={`span ${row.failed ? "is-failed" : ""} ${chosen ? "is-chosen" : ""}`}
      role="treeitem"
      aria-level={row.depth + 1}
      aria-selected={chosen}
      tabIndex={0}
      onClick={choose}
      onKeyDown={(event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose();
      }}
    >
      <span class="span-name" style={{ paddingInlineStart: `${Math.min(row.depth, 12) * 14}px` }}>
        <span class="sign" aria-hidden="true">
          {row.failed ? "\u2715" : "\u00b7"}
        </span>
        <Said text={what} />
        <small class="muted">
          <Said text={`${span.method} ${span.path}`} />
        </small>
      </span>
      <span class="span-track" aria-hidden="true">
        <span class={`span-bar span-${span.kind}`} style={{ insetInlineStart: `${(row.from * 100).toFixed(2)}%`, width: `${Math.max(0.4, row.length * 100).toFixed(2)}%` }} />
      </span>
      <span class="span-took">
        {micros(span.micros)}
        {row.failed ? <span class="sr"> failed</span> : null}
      </span>
    </div>
  );
}
