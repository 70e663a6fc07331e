/** Events about one object, newest first, as they come. */

import type { JSX } from "preact";

import { count, text, type Item } from "../kube/read";
import { EVENTS } from "../kube/resource";
import { lastSeen } from "../model/workload";
import { useObjects } from "./hooks";
import { Table, type Col } from "./table";
import { Ago, instead, Said, Standing } from "./words";

export function useEvents(namespace: string | undefined, uid: string | undefined, name: string): readonly Item[] {
  const fields = uid === undefined ? `involvedObject.name=${name}` : `involvedObject.uid=${uid}`;
  const state = useObjects({ resource: EVENTS, namespace: namespace || "default", fields });
  return state.rows.map((row) => row.object);
}

const COLS: readonly Col<Item>[] = [
  { id: "type", title: "Type", width: 104, by: (event) => text(event, "type"), cell: (event) => <Standing is={text(event, "type") === "Warning" ? "busy" : "ok"} word={text(event, "type")} /> },
  { id: "reason", title: "Reason", width: 170, by: (event) => text(event, "reason"), cell: (event) => <Said text={text(event, "reason")} /> },
  { id: "message", title: "Message", cell: (event) => <span title={text(event, "message")}><Said text={text(event, "message")} /></span> },
  { id: "from", title: "From", width: 150, spare: true, by: (event) => text(event, "source", "component"), cell: (event) => <Said text={text(event, "source", "component") || text(event, "reportingComponent")} /> },
  { id: "count", title: "Times", width: 64, right: true, spare: true, by: (event) => count(event, "count"), cell: (event) => count(event, "series", "count") || count(event, "count") || 1 },
  { id: "last", title: "Last", width: 104, right: true, by: lastSeen, cell: (event) => <Ago time={lastSeen(event)} /> },
];

export function Events({ namespace, name, uid }: { namespace: string | undefined; name: string; uid?: string | undefined }): JSX.Element {
  const fields = uid === undefined ? `involvedObject.name=${name}` : `involvedObject.uid=${uid}`;
  const state = useObjects({ resource: EVENTS, namespace: namespace || "default", fields });
  return instead(state, "events", "Events go after an hour.") ?? <Table label={`Events of ${name}`} short rows={state.rows.map((row) => row.object)} cols={COLS} id={(event) => event.metadata.uid ?? event.metadata.name} sort="last" descending />;
}
