/** Faults on purpose: which are at work, until when, and an end to each before its time. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";

import { action } from "../kube/access";
import { condition, count, list, text, type Item } from "../kube/read";
import { FAULTS, nameOf, pathOf, SERVICES } from "../kube/resource";
import { remove } from "../kube/write";
import { seconds, span } from "../model/format";
import { Act } from "../ui/act";
import { useObjects, useTitle } from "../ui/hooks";
import { now } from "../ui/now";
import { namespace } from "../ui/route";
import { Table, type Col } from "../ui/table";
import { doing } from "../ui/toast";
import { Ago, instead, Link, Said, Section, Standing } from "../ui/words";
import { injectDialog } from "./inject";

/** Milliseconds until it ends; none where it has. */
function left(fault: Item): number {
  const until = Date.parse(fault.metadata.creationTimestamp ?? "") + (seconds(text(fault, "spec", "duration")) ?? 0) * 1000;
  return Math.max(0, until - now.value);
}

function what(fault: Item): string {
  const parts: string[] = [];
  if (count(fault, "spec", "delay", "percent") > 0) parts.push(`${count(fault, "spec", "delay", "percent")} % wait ${text(fault, "spec", "delay", "duration")}`);
  if (count(fault, "spec", "abort", "percent") > 0) parts.push(`${count(fault, "spec", "abort", "percent")} % are answered ${count(fault, "spec", "abort", "httpStatus")}`);
  return parts.join(", ");
}

export function Faults(): JSX.Element {
  useTitle("Faults");
  const ns = namespace.value;
  const faults = useObjects({ resource: FAULTS, namespace: ns });
  const services = useObjects({ resource: SERVICES, namespace: ns, every: 15_000 });
  const chosen = useSignal("");
  const names = services.rows.map((row) => row.key).sort();
  const [where = "", service = ""] = chosen.value.split("/");
  const cols: Col<Item>[] = [
    {
      id: "state",
      title: "State",
      width: 110,
      by: left,
      cell: (fault) => {
        const active = condition(fault, "Active");
        const is = left(fault) > 0 && active?.status !== "False";
        return <Standing is={is ? "busy" : "off"} word={is ? "At work" : "Over"} why={active?.message} />;
      },
    },
    { id: "target", title: "Service", by: (fault) => text(fault, "spec", "targetRefs", 0, "name"), cell: (fault) => <Said text={list(fault, "spec", "targetRefs").map((target) => text(target, "name")).join(", ") || "all"} /> },
    { id: "namespace", title: "Namespace", spare: true, by: (fault) => fault.metadata.namespace ?? "", cell: (fault) => <Said text={fault.metadata.namespace ?? ""} /> },
    { id: "what", title: "What", cell: (fault) => what(fault) },
    { id: "left", title: "Ends in", width: 90, right: true, by: left, cell: (fault) => (left(fault) > 0 ? span(left(fault) / 1000) : "ended") },
    { id: "made", title: "Made", width: 110, spare: true, right: true, by: (fault) => fault.metadata.creationTimestamp ?? "", cell: (fault) => <Ago time={fault.metadata.creationTimestamp} /> },
    {
      id: "end",
      title: "Actions",
      width: 92,
      cell: (fault) => (
        <Act quiet on={action("delete", FAULTS, fault.metadata.namespace, fault.metadata.name)} label={`End it: ${fault.metadata.name}`} act={() => void doing("The fault is over", () => remove(pathOf(FAULTS, fault)))}>
          End it
        </Act>
      ),
    },
  ];
  return (
    <>
      <h1>Faults</h1>
      <Section title="Inject one">
        <div class="tools">
          <label>
            <span>Service</span>
            <select value={chosen.value} onChange={(event) => (chosen.value = event.currentTarget.value)}>
              <option value="">choose one</option>
              {names.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <Act on={action("create", FAULTS, where || ns || "default")} unless={service === "" ? "choose a Service first" : undefined} act={() => injectDialog(where, service)}>
            Inject&hellip;
          </Act>
          <span class="muted">Calls of it wait, or are answered in its place, for a time; it ends by itself.</span>
        </div>
      </Section>
      <Section title="Injected" aside={<Link page="objects" query={{ kind: nameOf(FAULTS) }}>as objects</Link>}>
        {instead(faults, "faults", "Nothing is spoiled on purpose.") ?? <Table label="Faults" short rows={faults.rows.map((row) => row.object)} cols={cols} id={(fault) => fault.metadata.uid ?? fault.metadata.name} sort="left" descending />}
      </Section>
    </>
  );
}
