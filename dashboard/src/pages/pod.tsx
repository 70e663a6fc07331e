/** One pod: why it does not run, in the words of whoever keeps it from that; its containers against their limits; a console into it. */

import type { JSX } from "preact";

import { action } from "../kube/access";
import { json } from "../kube/http";
import { at, conditions, controllerOf, count, flag, list, text, type Item } from "../kube/read";
import { knownKind, nameOf, objectPath, pathOf, PODS } from "../kube/resource";
import { evict, remove } from "../kube/write";
import { bytes, cores, quantity, whole } from "../model/format";
import { obstacles, placement, podWord } from "../model/workload";
import { Act } from "../ui/act";
import { confirm } from "../ui/dialog";
import { Events, useEvents } from "../ui/events";
import { useAnswer, useFigures, useTitle } from "../ui/hooks";
import { lazy } from "../ui/lazy";
import { usedBy } from "../ui/pods";
import { Usage } from "../ui/usage";
import { asked, href } from "../ui/route";
import { doing, soon } from "../ui/toast";
import { Ago, Empty, Facts, Failure, Link, Loading, Meter, Said, Section, Standing, Tabs } from "../ui/words";

const Console = lazy<{ pod: Item }>("the console", async () => (await import("../ui/console")).Console);
const EVERY_MILLIS = 2000;

export function Pod(): JSX.Element {
  useFigures();
  const [where, name, tab] = [asked("in"), asked("name"), asked("tab")];
  useTitle(name);
  const found = useAnswer(async (signal) => (await json(objectPath(PODS, where, name), { signal })) as Item, [where, name], EVERY_MILLIS);
  const pod = found.value;
  if (pod === undefined) return found.error === undefined ? <Loading what={name} /> : <Failure error={found.error} again={found.again} />;
  const said = podWord(pod);
  const address = (tab: string) => href("pod", { in: where, name, tab });
  const owner = controllerOf(pod);
  const gone = found.error?.code === 404;
  return (
    <>
      <div class="page-head">
        <div>
          <p class="crumb">
            <Link page="workloads">Workloads</Link> / Pod / <Said text={where} />
          </p>
          <h1>
            <Said text={name} />
          </h1>
          <p class="head-line">
            <Standing is={gone ? "off" : said.standing} word={gone ? "Gone" : said.word} />
            <span>
              {said.ready} of {said.containers} containers ready
            </span>
            {said.restarts > 0 ? <span>{said.restarts} restarts</span> : null}
            {text(pod, "spec", "nodeName") === "" ? null : (
              <span>
                on{" "}
                <Link page="node" query={{ name: text(pod, "spec", "nodeName") }}>
                  <Said text={text(pod, "spec", "nodeName")} />
                </Link>
              </span>
            )}
          </p>
        </div>
        <div class="buttons">
          <Link page="logs" query={{ in: where, pod: name }} class="button">
            Logs
          </Link>
          <Link page="object" query={{ kind: nameOf(PODS), in: where, name, tab: "yaml" }} class="button">
            YAML
          </Link>
          <Act on={action("create", PODS, where, name, "eviction")} act={() => confirm(`Evict ${name}?`, "It goes as soon as its disruption budget lets it.", "Evict", () => void doing(`${name} is evicted`, () => evict(pod)))}>
            Evict
          </Act>
          <Act
            danger
            on={action("delete", PODS, where, name)}
            act={() => {
              soon(`Deleting pod ${name}`, `Pod ${name} is deleted`, () => remove(pathOf(PODS, pod)));
              history.back();
            }}
          >
            Delete
          </Act>
        </div>
      </div>
      <Tabs
        label="About the pod"
        at={tab}
        of={[
          { id: "", title: "Now", address: address("") },
          { id: "console", title: "Console", address: address("console") },
          { id: "events", title: "Events", address: address("events") },
        ]}
      />
      {tab === "console" ? (
        <Console pod={pod} />
      ) : tab === "events" ? (
        <Events namespace={where} name={name} uid={pod.metadata.uid} />
      ) : (
        <>
          {said.standing === "bad" || said.standing === "busy" ? <Why pod={pod} /> : null}
          <Section title="Containers">
            {list(pod, "spec", "containers").map((container) => (
              <Container key={text(container, "name")} pod={pod} container={container} />
            ))}
          </Section>
          <Usage pods={[pod]} />
          <Section title="About it">
            <Facts
              of={[
                ["Made", <Ago time={pod.metadata.creationTimestamp} />],
                ["Address", text(pod, "status", "podIP")],
                ["Account", text(pod, "spec", "serviceAccountName")],
                ["Class", text(pod, "status", "qosClass")],
                ["Priority", text(pod, "spec", "priorityClassName")],
                ["Runtime", text(pod, "spec", "runtimeClassName")],
                [
                  "Belongs to",
                  owner === undefined ? (
                    ""
                  ) : knownKind(owner.kind) === undefined ? (
                    <Said text={`${owner.kind} ${owner.name}`} />
                  ) : (
                    <a href={href("object", { kind: nameOf(knownKind(owner.kind) ?? PODS), in: where, name: owner.name })}>
                      <Said text={`${owner.kind} ${owner.name}`} />
                    </a>
                  ),
                ],
                ["Labels", <Said text={Object.entries(pod.metadata.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ")} class="mono" />],
              ]}
            />
          </Section>
          <Section title="Conditions">
            <ul class="list conditions">
              {conditions(pod).map((one) => (
                <li key={one.type}>
                  <Standing is={one.status === "True" ? "ok" : "off"} word={one.type} />
                  <span class="why">
                    <Said text={one.message || one.reason} />
                  </span>
                  <span class="muted">
                    <Ago time={one.since} />
                  </span>
                </li>
              ))}
            </ul>
          </Section>
        </>
      )}
    </>
  );
}

function Why({ pod }: { pod: Item }): JSX.Element {
  const events = useEvents(pod.metadata.namespace, pod.metadata.uid, pod.metadata.name);
  const found = obstacles(pod, events);
  return (
    <Section title="Why it does not run">
      {found.length === 0 ? (
        <Empty title="Nobody has said anything against it">It is on its way.</Empty>
      ) : (
        <ul class="list">
          {found.map((one) => {
            const nodes = placement(one.message);
            return (
              <li key={one.message} class="obstacle">
                <Standing is="bad" word={one.reason || one.from} />
                <div class="why">
                  <Said text={one.message} />
                  {nodes.length === 0 ? null : (
                    <table class="small" aria-label="Nodes that do not take it">
                      <tbody>
                        {nodes.map((node) => (
                          <tr key={node.reason}>
                            <td class="right">{node.nodes}</td>
                            <td>
                              <Said text={node.reason} />
                            </td>
                          </tr>
                        ))}
                      </tbody>
                    </table>
                  )}
                </div>
                <span class="muted">
                  <Said text={one.from} /> {one.at === "" ? null : <Ago time={one.at} />}
                </span>
              </li>
            );
          })}
        </ul>
      )}
    </Section>
  );
}

function Container({ pod, container }: { pod: Item; container: unknown }): JSX.Element {
  const name = text(container, "name");
  const status = list(pod, "status", "containerStatuses").find((one) => text(one, "name") === name);
  const used = list(pod, "spec", "containers").length === 1 ? usedBy(pod) : undefined;
  const memory = quantity(at(container, "resources", "limits", "memory"));
  const cpu = quantity(at(container, "resources", "limits", "cpu"));
  const state = at(status, "state", "running") !== undefined ? "Running" : text(status, "state", "waiting", "reason") || text(status, "state", "terminated", "reason") || "not there yet";
  const usedMemory = used === undefined ? "" : memory === undefined ? bytes(used.bytes) : <Meter share={used.bytes / memory} text={`${bytes(used.bytes)} of ${bytes(memory)}`} />;
  const usedCpu = used === undefined ? "" : cpu === undefined ? cores(used.milliCores) : <Meter share={used.milliCores / (cpu * 1000)} text={`${cores(used.milliCores)} of ${cores(cpu * 1000)}`} />;
  return (
    <Facts
      of={[
        ["Name", <Said text={name} />],
        ["State", <Standing is={flag(status, "ready") ? "ok" : state === "Running" ? "busy" : state === "Completed" ? "off" : "busy"} word={state} />],
        ["Image", <Said text={text(container, "image")} class="mono" />],
        ["Memory", usedMemory],
        ["CPU", usedCpu],
        ["Instances", used === undefined ? "" : used.instances === 0 ? "none now; the next call starts one" : whole(used.instances)],
        ["Ports", list(container, "ports").map((port) => `${text(port, "name")} ${count(port, "containerPort")}`.trim()).join(", ")],
        ["Restarts", count(status, "restartCount") > 0 ? String(count(status, "restartCount")) : ""],
      ]}
    />
  );
}

