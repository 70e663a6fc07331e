/** Every kind that the server serves, users' own too, and the objects of each by the columns that the server prints. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";

import { action, may } from "../kube/access";
import { kindNamed, kinds, type Served } from "../kube/discovery";
import type { Column, Row } from "../kube/collection";
import { nameOf, pathOf } from "../kube/resource";
import { remove } from "../kube/write";
import { ago, exact } from "../model/format";
import { Act } from "../ui/act";
import { useAnswer, useObjects, useTitle } from "../ui/hooks";
import { on } from "../ui/keys";
import { now } from "../ui/now";
import { asked, go, href, namespace, say } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { soon } from "../ui/toast";
import { Empty, Failure, Freshness, instead, Link, Loading, Said } from "../ui/words";
import { ApiError } from "../kube/http";

export function Kinds(): JSX.Element {
  useTitle("Objects");
  const found = useAnswer(() => kinds(), []);
  const find = asked("find").toLowerCase();
  if (found.value === undefined) return found.error === undefined ? <Loading what="kinds" /> : <Failure error={found.error} again={found.again} />;
  const shown = found.value.filter((kind) => kind.verbs.includes("list") && `${kind.kind} ${nameOf(kind)} ${kind.shortNames.join(" ")}`.toLowerCase().includes(find));
  const groups = [...new Set(shown.map((kind) => kind.group))].sort();
  return (
    <>
      <div class="page-head">
        <h1>Objects</h1>
        <div class="tools">
          <label class="expression">
            <span>Find</span>
            <input data-find="" value={asked("find")} placeholder="kind or group" spellcheck={false} onInput={(event) => say({ find: event.currentTarget.value })} />
          </label>
          <Link page="create" class="button">
            Create&hellip;
          </Link>
        </div>
      </div>
      {groups.length === 0 ? <Empty title="No such kind" /> : null}
      <div class="kinds">
        {groups.map((group) => (
          <section key={group} aria-label={group || "core"}>
            <h2>
              <Said text={group || "core"} />
            </h2>
            <ul>
              {shown
                .filter((kind) => kind.group === group)
                .map((kind) => (
                  <li key={nameOf(kind)}>
                    <Link page="objects" query={{ kind: nameOf(kind) }}>
                      <Said text={kind.kind || kind.plural} />
                    </Link>
                    <span class="muted"> {kind.shortNames.join(" ")}</span>
                  </li>
                ))}
            </ul>
          </section>
        ))}
      </div>
    </>
  );
}

export function Objects(): JSX.Element {
  const name = asked("kind");
  const found = useAnswer(() => kindNamed(name), [name]);
  useTitle(found.value?.kind ?? "Objects");
  if (found.value === undefined) {
    if (found.error !== undefined) return <Failure error={found.error} again={found.again} />;
    return found.busy ? <Loading what={name} /> : <Failure error={new ApiError(404, "NotFound", `the server serves no ${name}`)} again={found.again} />;
  }
  return <List kind={found.value} />;
}

/** Where an object of the list has a page of its own. */
function address(kind: Served, row: Row): string {
  const { namespace: where, name } = row.object.metadata;
  if (kind.group === "" && kind.plural === "pods") return href("pod", { in: where, name });
  if (kind.group === "" && kind.plural === "nodes") return href("node", { name });
  return href("object", { kind: nameOf(kind), in: where, name });
}

function cell(column: Column, value: unknown): JSX.Element | string {
  if (value === null || value === undefined) return "";
  if (column.format === "date" || column.type === "date") return ago(String(value), now.value);
  return <Said text={Array.isArray(value) ? value.join(", ") : String(value)} />;
}

function order(value: unknown): string | number {
  if (typeof value === "number") return value;
  return value === null || value === undefined ? "" : String(value);
}

const BAD = /error|fail|backoff|pending|unknown|notready|not ready|evicted|terminating|false/i;

function List({ kind }: { kind: Served }): JSX.Element {
  const ns = kind.namespaced ? namespace.value : "";
  const watched = kind.verbs.includes("watch");
  const state = useObjects({ resource: kind, namespace: ns, table: true, every: watched ? undefined : 5000 });
  const find = asked("find");
  const faulty = useSignal(false);
  useEffect(() => on("z", () => (faulty.value = !faulty.value)), []);
  const form = state.columns.map((column) => column.name).join("|");
  const cols = useMemo((): Col<Row>[] => {
    const several = kind.namespaced && ns === "";
    const shown = state.columns.map((column, index) => ({ column, index })).filter(({ column }) => column.priority === 0);
    const made = shown.map(({ column, index }): Col<Row> => {
      const named = column.name === "Name";
      const short = column.type === "integer" || column.type === "date" || column.format === "date" || /^(Age|Ready|Restarts|Type|Status)$/.test(column.name);
      return {
        id: `${index}`,
        title: column.name,
        hint: column.description,
        ...(short ? { width: 108 } : {}),
        right: column.type === "integer",
        spare: !named && index > 2,
        by: (row) => (column.name === "Age" ? -Date.parse(row.object.metadata.creationTimestamp ?? "") : order(row.cells[index])),
        cell: (row) =>
          named ? (
            <a href={address(kind, row)}>
              <Said text={row.object.metadata.name} />
            </a>
          ) : column.name === "Age" && row.object.metadata.creationTimestamp !== undefined ? (
            <time title={exact(row.object.metadata.creationTimestamp)}>{cell(column, row.cells[index])}</time>
          ) : (
            cell(column, row.cells[index])
          ),
      };
    });
    if (several) made.splice(1, 0, { id: "namespace", title: "Namespace", width: 150, spare: true, by: (row) => row.object.metadata.namespace ?? "", cell: (row) => <Said text={row.object.metadata.namespace ?? ""} /> });
    return made;
  }, [form, kind, ns]);
  const rows = useMemo(() => {
    const words = find.toLowerCase();
    if (words === "" && !faulty.value) return state.rows;
    return state.rows.filter((row) => {
      const said = `${row.key} ${row.cells.join(" ")}`;
      if (faulty.value && !BAD.test(said) && !halfReady(said)) return false;
      return words === "" || said.toLowerCase().includes(words);
    });
  }, [state.rows, find, faulty.value]);
  return (
    <>
      <div class="page-head">
        <div>
          <p class="crumb">
            <Link page="kinds">Objects</Link> / <Said text={nameOf(kind)} />
          </p>
          <h1>
            <Said text={kind.kind} /> <span class="count">{state.status === "ready" ? rows.length : ""}</span>
          </h1>
        </div>
        <div class="tools">
          <Freshness state={state} />
          <label class="expression">
            <span>Find</span>
            <input data-find="" value={find} placeholder="in any column" spellcheck={false} onInput={(event) => say({ find: event.currentTarget.value })} />
          </label>
          <label class="check">
            <input type="checkbox" checked={faulty.value} onChange={(event) => (faulty.value = event.currentTarget.checked)} /> Faulty only
          </label>
          <Act on={action("create", kind, ns || "default")} act={() => go(href("create", { kind: nameOf(kind) }))}>
            Create&hellip;
          </Act>
        </div>
      </div>
      {instead(state, kind.plural, "") ??
        (rows.length === 0 && !state.partial ? (
          <Empty title="None of these" />
        ) : (
          <Table
            label={kind.kind}
            rows={rows}
            cols={cols}
            id={(row) => row.key}
            sort="0"
            address={(row) => address(kind, row)}
            keys={{
              y: (row) => go(href("object", { kind: nameOf(kind), in: row.object.metadata.namespace, name: row.object.metadata.name, tab: "yaml" })),
              l: (row) => (kind.plural === "pods" ? go(href("logs", { in: row.object.metadata.namespace, pod: row.object.metadata.name })) : undefined),
              s: (row) => (kind.plural === "pods" ? go(href("pod", { in: row.object.metadata.namespace, name: row.object.metadata.name, tab: "console" })) : undefined),
              "ctrl-d": (row) => {
                const { name, namespace: where } = row.object.metadata;
                if (may(action("delete", kind, where, name)) === true) soon(`Deleting ${kind.kind} ${name}`, `${kind.kind} ${name} is deleted`, () => remove(pathOf(kind, row.object)));
              },
            }}
          />
        ))}
    </>
  );
}

/** "1/2": less is ready than should be. */
function halfReady(said: string): boolean {
  return [...said.matchAll(/\b(\d+)\/(\d+)\b/g)].some(([, done, wanted]) => Number(done) < Number(wanted));
}
