/** One object of any kind: what it says of itself, its events, and its YAML to be changed. */

import type { JSX } from "preact";

import { action } from "../kube/access";
import { kindNamed, type Served } from "../kube/discovery";
import { ApiError, json } from "../kube/http";
import { conditions, controllerOf, entries, item, type Item } from "../kube/read";
import { knownKind, nameOf, objectPath, pathOf } from "../kube/resource";
import { remove } from "../kube/write";
import { Act } from "../ui/act";
import { Events } from "../ui/events";
import { useAnswer, useTitle } from "../ui/hooks";
import { lazy } from "../ui/lazy";
import { asked, go, href, namespace } from "../ui/route";
import { soon } from "../ui/toast";
import { Ago, Facts, Failure, Link, Loading, Said, Section, Standing, Tabs } from "../ui/words";

const Editor = lazy<{ kind: Served; object: Item; done: () => void }>("the editor", async () => (await import("../ui/editor")).Editor);
const Creator = lazy<{ kind: Served | undefined }>("the editor", async () => (await import("../ui/editor")).Creator);
const EVERY_MILLIS = 3000;

export function ObjectPage(): JSX.Element {
  const [name, where, called, tab] = [asked("kind"), asked("in"), asked("name"), asked("tab")];
  const kind = useAnswer(() => kindNamed(name), [name]);
  useTitle(called);
  const found = useAnswer(
    async (signal) => {
      if (kind.value === undefined) return undefined;
      return item(await json(objectPath(kind.value, where, called), { signal }));
    },
    [kind.value, where, called],
    EVERY_MILLIS,
  );
  const object = found.value;
  if (kind.error !== undefined) return <Failure error={kind.error} again={kind.again} />;
  if (kind.value === undefined) return kind.busy ? <Loading what={called} /> : <Failure error={new ApiError(404, "NotFound", `the server serves no ${name}`)} />;
  if (object === undefined) return found.error === undefined ? <Loading what={called} /> : <Failure error={found.error} again={found.again} />;
  const served = kind.value;
  const address = (tab: string) => href("object", { kind: name, in: where, name: called, tab });
  const owner = controllerOf(object);
  return (
    <>
      <div class="page-head">
        <div>
          <p class="crumb">
            <Link page="kinds">Objects</Link> /{" "}
            <Link page="objects" query={{ kind: name }}>
              <Said text={name} />
            </Link>
            {where === "" ? null : (
              <>
                {" "}
                / <Said text={where} />
              </>
            )}
          </p>
          <h1>
            <Said text={called} />
          </h1>
          {found.error?.code === 404 ? <Standing is="off" word="Gone" /> : null}
        </div>
        <div class="buttons">
          <Act
            danger
            on={action("delete", served, where || undefined, called)}
            act={() => {
              soon(`Deleting ${served.kind} ${called}`, `${served.kind} ${called} is deleted`, () => remove(pathOf(served, object)));
              go(href("objects", { kind: name }));
            }}
          >
            Delete
          </Act>
        </div>
      </div>
      <Tabs
        label="About the object"
        at={tab}
        of={[
          { id: "", title: "Summary", address: address("") },
          { id: "yaml", title: "YAML", address: address("yaml") },
          { id: "events", title: "Events", address: address("events") },
        ]}
      />
      {tab === "yaml" ? (
        <Editor key={object.metadata.uid ?? ""} kind={served} object={object} done={found.again} />
      ) : tab === "events" ? (
        <Events namespace={where} name={called} uid={object.metadata.uid} />
      ) : (
        <>
          <Section title="About it">
            <Facts
              of={[
                ["Made", <Ago time={object.metadata.creationTimestamp} />],
                ["Being deleted", object.metadata.deletionTimestamp === undefined ? "" : <Ago time={object.metadata.deletionTimestamp} />],
                ["Generation", object.metadata.generation === undefined ? "" : String(object.metadata.generation)],
                ["Labels", <Pairs of={object.metadata.labels} />],
                ["Belongs to", owner === undefined ? "" : <Owner kind={owner.kind} name={owner.name} where={where} />],
              ]}
            />
          </Section>
          {Object.keys(object.metadata.annotations ?? {}).length === 0 ? null : (
            <Section title="Annotations">
              <Pairs of={object.metadata.annotations} />
            </Section>
          )}
          <Parts title="Specification" of={entries(object, "spec")} />
          <Parts title="Status" of={entries(object, "status").filter(([name]) => name !== "conditions")} />
          <Parts title="Data" of={entries(object, "data").map(([name, value]) => [name, served.kind === "Secret" ? "(hidden; its YAML has it)" : value])} />
          {conditions(object).length === 0 ? null : (
            <Section title="Conditions">
              <ul class="list conditions">
                {conditions(object).map((one) => (
                  <li key={one.type}>
                    <Standing is={one.status === "True" ? "ok" : one.status === "False" ? "off" : "busy"} word={`${one.type} ${one.status}`} />
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
          )}
        </>
      )}
    </>
  );
}

function Owner({ kind, name, where }: { kind: string; name: string; where: string }): JSX.Element {
  const known = knownKind(kind);
  const said = <Said text={`${kind} ${name}`} />;
  return known === undefined ? said : <a href={href("object", { kind: nameOf(known), in: known.namespaced ? where : "", name })}>{said}</a>;
}

/** Longer values are in the YAML. */
const PAIR_MAX = 160;

function Pairs({ of }: { of: Readonly<Record<string, string>> | undefined }): JSX.Element | null {
  const all = Object.entries(of ?? {});
  if (all.length === 0) return null;
  return (
    <ul class="pairs mono">
      {all.map(([name, value]) => (
        <li key={name}>
          <Said text={`${name}=${value.length > PAIR_MAX ? `${value.slice(0, PAIR_MAX)}\u2026` : value}`} />
        </li>
      ))}
    </ul>
  );
}

const SHOWN_MAX = 600;

function Parts({ title, of }: { title: string; of: readonly [string, unknown][] }): JSX.Element | null {
  if (of.length === 0) return null;
  return (
    <Section title={title}>
      <Facts of={of.map(([name, value]) => [name, <Said text={(typeof value === "object" ? JSON.stringify(value) : String(value)).slice(0, SHOWN_MAX)} class="mono" />])} />
    </Section>
  );
}

export function Create(): JSX.Element {
  useTitle("Create");
  const name = asked("kind");
  const kind = useAnswer(() => (name === "" ? Promise.resolve(undefined) : kindNamed(name)), [name]);
  return (
    <>
      <h1>Create</h1>
      <p class="muted">One or several objects, apart by <code>---</code>; in namespace {namespace.value || "default"} where they name none.</p>
      {kind.busy ? <Loading what="the kind" /> : <Creator kind={kind.value} />}
    </>
  );
}

