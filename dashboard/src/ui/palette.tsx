/** Goes anywhere by a part of its name: pages, kinds, namespaces, workloads, pods, nodes. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { kinds } from "../kube/discovery";
import { json, url } from "../kube/http";
import { list, text } from "../kube/read";
import { DEPLOYMENTS, listPath, nameOf, NAMESPACES, NODES, PODS, ROLLOUTS, SERVICES, type Resource } from "../kube/resource";
import { score } from "../model/match";
import { close, show } from "./dialog";
import { PAGES } from "./keys";
import { go, href, lookAt, namespace } from "./route";
import { Said } from "./words";

interface Place {
  readonly kind: string;
  readonly name: string;
  readonly go: () => void;
}

const SHOWN_MAX = 12;
/** Objects of a kind that are looked through. */
const OBJECTS_MAX = 500;

export function openPalette(): void {
  show("Go to", () => <Palette />);
}

async function objects(resource: Resource, place: (ns: string, name: string) => string): Promise<Place[]> {
  const found = await json(url(listPath(resource, namespace.peek()), { limit: OBJECTS_MAX }), { accept: "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json" }).catch(() => undefined);
  return list(found, "items").map((item) => {
    const [ns, name] = [text(item, "metadata", "namespace"), text(item, "metadata", "name")];
    return { kind: resource.kind, name: ns === "" ? name : `${ns}/${name}`, go: () => go(place(ns, name)) };
  });
}

async function everywhere(): Promise<Place[]> {
  const workload = (resource: Resource) => objects(resource, (ns, name) => href("workload", { kind: nameOf(resource), in: ns, name }));
  const found = await Promise.all([
    kinds().then((all) => all.map((kind): Place => ({ kind: "kind", name: nameOf(kind), go: () => go(href("objects", { kind: nameOf(kind) })) })), () => []),
    objects(NAMESPACES, () => "").then((all) => all.map((one): Place => ({ ...one, go: () => lookAt(one.name) }))),
    workload(DEPLOYMENTS),
    workload(ROLLOUTS),
    objects(SERVICES, (ns, name) => href("object", { kind: nameOf(SERVICES), in: ns, name })),
    objects(PODS, (ns, name) => href("pod", { in: ns, name })),
    objects(NODES, (_ns, name) => href("node", { name })),
  ]);
  return found.flat();
}

function Palette(): JSX.Element {
  const said = useSignal("");
  const places = useSignal<readonly Place[]>(PAGES.map(({ page, title }) => ({ kind: "page", name: title, go: () => go(href(page)) })));
  const at = useSignal(0);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    field.current?.focus();
    void everywhere().then((more) => (places.value = [...places.value, ...more]));
  }, []);
  const words = said.value.trim();
  const found = (words === "" ? places.value.map((place) => ({ place, score: 0 })) : places.value.map((place) => ({ place, score: score(`${place.name} ${place.kind}`, words) })))
    .filter((one) => one.score > Number.NEGATIVE_INFINITY)
    .sort((a, b) => b.score - a.score)
    .slice(0, SHOWN_MAX)
    .map((one) => one.place);
  const chosen = Math.min(at.value, Math.max(0, found.length - 1));
  const take = (place: Place | undefined) => {
    if (place === undefined) return;
    close();
    place.go();
  };
  return (
    <div class="palette">
      <input
        ref={field}
        role="combobox"
        aria-expanded="true"
        aria-controls="places"
        aria-activedescendant={found.length > 0 ? `place-${chosen}` : undefined}
        aria-label="Name of a page, a kind or an object"
        placeholder="a page, a kind, an object"
        spellcheck={false}
        value={said.value}
        onInput={(event) => ((said.value = event.currentTarget.value), (at.value = 0))}
        onKeyDown={(event) => {
          const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
          if (step !== 0) at.value = Math.max(0, Math.min(found.length - 1, chosen + step));
          else if (event.key === "Enter") take(found[chosen]);
          else return;
          event.preventDefault();
        }}
      />
      <ul id="places" role="listbox" aria-label="Places">
        {found.map((place, index) => (
          <li key={`${place.kind} ${place.name}`} id={`place-${index}`} role="option" aria-selected={index === chosen} onClick={() => take(place)}>
            <Said text={place.name} />
            <span class="muted">{place.kind}</span>
          </li>
        ))}
      </ul>
      {found.length === 0 ? <p class="muted">Nothing has these letters.</p> : null}
    </div>
  );
}
