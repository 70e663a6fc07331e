/**
 * YAML to be changed: CodeMirror with the kind's own schema beside it. Before anything is changed the server is asked what would come of it
 * (`dryRun=All`), and the difference is shown.
 *
 * CodeMirror puts its rules into sheets of a shadow root, where the page's policy lets it: the page has no inline style.
 *
 * Invariants: what is applied is what was shown in the difference, against the version it was shown against; a refusal is in the API's words.
 */

import { autocompletion, type CompletionContext, type CompletionResult } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { bracketMatching, foldGutter, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { linter, lintGutter, type Diagnostic } from "@codemirror/lint";
import { search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { action, refusedBecause } from "../kube/access";
import { kindOf, schemaOf, type Schemas, type Served } from "../kube/discovery";
import { json, url } from "../kube/http";
import { at, item, list, text, type Item } from "../kube/read";
import { listPath, nameOf, pathOf } from "../kube/resource";
import { MANAGER } from "../kube/write";
import { fieldsOf, pathAt, schemaAt, typeOf } from "../model/schema";
import { told } from "../kube/http";
import { Difference } from "./difference";
import { go, href, namespace } from "./route";
import { doing } from "./toast";
import { Said } from "./words";
import { fromYaml, readable } from "./yaml";
import { parseAllDocuments } from "yaml";

const COLOURS = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--code-name)" },
  { tag: [tags.string, tags.content], color: "var(--code-text)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--code-value)" },
  { tag: tags.comment, color: "var(--muted)" },
  { tag: [tags.separator, tags.punctuation], color: "var(--muted)" },
]);

const LOOK = EditorView.theme({
  "&": { height: "100%", fontSize: "13px", color: "var(--ink)", backgroundColor: "var(--surface)" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.5" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--muted)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--hover)" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--selection) !important" },
  ".cm-tooltip": { backgroundColor: "var(--raised)", color: "var(--ink)", border: "1px solid var(--line)", maxWidth: "36em" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent-strong)", color: "var(--on-accent)" },
  ".cm-panels": { backgroundColor: "var(--raised)", color: "var(--ink)" },
  ".cm-completionInfo": { padding: "6px 8px" },
});

interface Place {
  readonly path: string;
  readonly type: string;
  readonly description: string;
  readonly fields: readonly { readonly name: string; readonly required: boolean }[];
}

interface CodeProps {
  readonly initial: string;
  readonly schemas: () => Schemas | undefined;
  readonly changed: (text: string) => void;
  readonly at: (place: Place) => void;
  readonly editable: boolean;
}

function Code({ initial, schemas, changed, at: here, editable }: CodeProps): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | undefined>(undefined);
  useEffect(() => {
    const element = host.current;
    if (element === null) return undefined;
    const root = element.shadowRoot ?? element.attachShadow({ mode: "open" });
    root.replaceChildren();
    const tell = (state: EditorState) => {
      const known = schemas();
      const row = state.doc.lineAt(state.selection.main.head).number - 1;
      const path = pathAt(state.doc.toJSON(), row);
      const schema = known === undefined ? undefined : schemaAt(known.kind, known.all, path);
      here({
        path: path.map((name) => (name === "0" ? "[]" : name)).join("."),
        type: schema === undefined ? "" : typeOf(schema),
        description: text(schema, "description"),
        fields: schema === undefined ? [] : fieldsOf(schema, known?.all),
      });
    };
    const editor = new EditorView({
      root,
      parent: root as unknown as Element,
      state: EditorState.create({
        doc: initial,
        extensions: [
          lineNumbers(),
          foldGutter(),
          lintGutter(),
          history(),
          drawSelection(),
          bracketMatching(),
          highlightActiveLine(),
          search({ top: true }),
          yaml(),
          syntaxHighlighting(COLOURS),
          autocompletion({ override: [(context) => completions(context, schemas())] }),
          linter((view) => faultsOf(view.state.doc.toString())),
          keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
          EditorView.editable.of(editable),
          EditorView.contentAttributes.of({ "aria-label": "YAML", spellcheck: "false", tabindex: "0" }),
          LOOK,
          EditorView.updateListener.of((update) => {
            if (update.docChanged) changed(update.state.doc.toString());
            if (update.docChanged || update.selectionSet) tell(update.state);
          }),
        ],
      }),
    });
    view.current = editor;
    // Handed to whoever tests the page, and to nobody else's use.
    (element as { editor?: EditorView }).editor = editor;
    return () => editor.destroy();
  }, [initial, editable]);
  return <div ref={host} class="editor" />;
}

function faultsOf(said: string): Diagnostic[] {
  return parseAllDocuments(said, { prettyErrors: false }).flatMap((document) =>
    "errors" in document
      ? document.errors.map((error): Diagnostic => ({ from: Math.min(error.pos[0], said.length), to: Math.min(error.pos[1], said.length), severity: "error", message: error.message }))
      : [],
  );
}

function completions(context: CompletionContext, known: Schemas | undefined): CompletionResult | null {
  const word = context.matchBefore(/[\w$.-]*/);
  if (known === undefined || word === null || (word.from === word.to && !context.explicit)) return null;
  const line = context.state.doc.lineAt(context.pos);
  if (line.text.slice(0, word.from - line.from).includes(":")) return null;
  // What is being written is taken for a name, so that what may stand beside it is offered.
  const lines = context.state.doc.toJSON();
  lines[line.number - 1] = `${line.text.slice(0, word.from - line.from)}x:`;
  const path = pathAt(lines, line.number - 1).slice(0, -1);
  const schema = schemaAt(known.kind, known.all, path);
  const options = fieldsOf(schema, known.all).map((field) => ({
    label: field.name,
    type: "property",
    detail: field.required ? `${field.type}, required` : field.type,
    info: field.description,
    apply: field.type === "object" || field.type === "list" ? `${field.name}:` : `${field.name}: `,
  }));
  return options.length === 0 ? null : { from: word.from, options };
}

function Help({ place }: { place: Place | undefined }): JSX.Element {
  if (place === undefined || place.path === "") return <p class="muted">Go to a field, and what it means is told here.</p>;
  return (
    <>
      <h3>
        <Said text={place.path} class="mono" />
      </h3>
      {place.type === "" ? <p class="muted">The schema knows no such field.</p> : <p class="muted">{place.type}</p>}
      {place.description === "" ? null : (
        <p class="described">
          <Said text={place.description} />
        </p>
      )}
      {place.fields.length === 0 ? null : (
        <ul class="plain mono">
          {place.fields.map((field) => (
            <li key={field.name}>
              {field.name}
              {field.required ? " *" : ""}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}

interface Tried {
  readonly before: string;
  readonly after: string;
  readonly send: (dry: boolean) => Promise<unknown>;
}

export function Editor({ kind, object, done }: { kind: Served; object: Item; done: () => void }): JSX.Element {
  const base = useSignal(object);
  const said = useSignal(readable({ ...object, apiVersion: object.apiVersion ?? "", kind: object.kind ?? kind.kind }));
  const initial = useSignal(said.peek());
  const schemas = useRef<Schemas | undefined>(undefined);
  const place = useSignal<Place | undefined>(undefined);
  const tried = useSignal<Tried | undefined>(undefined);
  const refusal = useSignal("");
  const { namespace: where, name } = object.metadata;
  const why = refusedBecause(action("update", kind, where, name));
  useEffect(() => {
    void schemaOf(kind).then(
      (found) => (schemas.current = found),
      () => undefined,
    );
  }, [kind]);
  const newer = object.metadata.resourceVersion !== base.value.metadata.resourceVersion;
  const send = (value: unknown) => (dry: boolean) => json(url(pathOf(kind, base.value), { fieldManager: MANAGER, fieldValidation: "Strict", dryRun: dry ? "All" : undefined }), { method: "PUT", body: value });
  const check = async () => {
    refusal.value = "";
    tried.value = undefined;
    const { value, faults } = fromYaml(said.value);
    if (faults[0] !== undefined) {
      refusal.value = faults[0].message;
      return;
    }
    try {
      const after = await send(value)(true);
      tried.value = { before: readable(base.value), after: readable(after), send: send(value) };
    } catch (error) {
      refusal.value = told(error);
    }
  };
  const apply = async () => {
    const ready = tried.value;
    if (ready === undefined) return;
    try {
      const after = item(await ready.send(false));
      await doing(`${kind.kind} ${name} is changed`, () => Promise.resolve());
      tried.value = undefined;
      if (after !== undefined) load(after);
      done();
    } catch (error) {
      refusal.value = told(error);
    }
  };
  const load = (fresh: Item) => {
    base.value = fresh;
    said.value = readable({ ...fresh, apiVersion: fresh.apiVersion ?? "", kind: fresh.kind ?? kind.kind });
    initial.value = said.value;
    tried.value = undefined;
    refusal.value = "";
  };
  return (
    <div class="edit">
      <div class="tools">
        <button type="button" class="button" disabled={why !== "" || said.value === initial.value} title={why || undefined} onClick={() => void check()}>
          Check and compare
        </button>
        <button type="button" class="button button-primary" disabled={tried.value === undefined} onClick={() => void apply()}>
          Apply
        </button>
        <button type="button" class="button" disabled={said.value === initial.value && !newer} onClick={() => load(object)}>
          {newer ? "Take the newer one" : "Leave changes"}
        </button>
        {why === "" ? null : <span class="note">{why}</span>}
        {newer ? <span class="note is-busy">it has changed meanwhile</span> : null}
      </div>
      {refusal.value === "" ? null : (
        <p class="failure-line" role="alert">
          <Said text={refusal.value} />
        </p>
      )}
      {tried.value === undefined ? null : (
        <div class="tried">
          <p>The server would take it. What changes:</p>
          <Difference before={tried.value.before} after={tried.value.after} />
        </div>
      )}
      <div class="edit-both">
        <Code
          initial={initial.value}
          schemas={() => schemas.current}
          editable={why === ""}
          changed={(text) => {
            said.value = text;
            tried.value = undefined;
          }}
          at={(at) => (place.value = at)}
        />
        <aside class="edit-help" aria-label="About the field" tabIndex={0}>
          <Help place={place.value} />
        </aside>
      </div>
    </div>
  );
}

function template(kind: Served | undefined): string {
  const [apiVersion, name] = kind === undefined ? ["v1", "ConfigMap"] : [kind.group === "" ? kind.version : `${kind.group}/${kind.version}`, kind.kind];
  const where = kind === undefined || kind.namespaced ? `\n  namespace: ${namespace.value || "default"}` : "";
  const rest = kind === undefined ? "data:\n  key: value\n" : "spec:\n  \n";
  return `apiVersion: ${apiVersion}\nkind: ${name}\nmetadata:\n  name: \n${where.slice(1)}${where === "" ? "" : "\n"}${rest}`;
}

interface Made {
  readonly kind: Served;
  readonly value: Item;
  readonly path: string;
}

/** Documents of a text, each with its kind as the server has it. */
async function wanted(said: string): Promise<Made[]> {
  const made: Made[] = [];
  const documents = parseAllDocuments(said, { prettyErrors: false });
  for (const document of Array.isArray(documents) ? documents : []) {
    if (document.errors[0] !== undefined) throw new Error(document.errors[0].message);
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    if (value === null || value === undefined) continue;
    const all = text(value, "kind") === "List" ? list(value, "items") : [value];
    for (const one of all) {
      const kind = await kindOf(text(one, "apiVersion"), text(one, "kind"));
      if (kind === undefined) throw new Error(`the server serves no ${text(one, "kind") || "object without a kind"} of ${text(one, "apiVersion") || "no version"}`);
      const where = text(one, "metadata", "namespace") || namespace.value || "default";
      const metadata = { ...(at(one, "metadata") as object | undefined), ...(kind.namespaced ? { namespace: where } : {}) };
      made.push({ kind, value: { ...(one as object), metadata } as unknown as Item, path: listPath(kind, where) });
    }
  }
  if (made.length === 0) throw new Error("there is no object in it");
  return made;
}

export function Creator({ kind }: { kind: Served | undefined }): JSX.Element {
  const initial = useRef(template(kind));
  const said = useSignal(initial.current);
  const schemas = useRef<Schemas | undefined>(undefined);
  const place = useSignal<Place | undefined>(undefined);
  const ready = useSignal<readonly Made[] | undefined>(undefined);
  const refusal = useSignal("");
  useEffect(() => {
    const known = kind === undefined ? kindOf("v1", "ConfigMap") : Promise.resolve(kind);
    void known.then(async (kind) => {
      if (kind !== undefined) schemas.current = await schemaOf(kind).catch(() => undefined);
    });
  }, [kind]);
  const send = (one: Made, dry: boolean) => json(url(one.path, { fieldManager: MANAGER, fieldValidation: "Strict", dryRun: dry ? "All" : undefined }), { method: "POST", body: one.value });
  const check = async () => {
    refusal.value = "";
    ready.value = undefined;
    try {
      const made = await wanted(said.value);
      // What is to be in a namespace that is made with it cannot be tried before.
      const fresh = new Set(made.filter((one) => one.kind.kind === "Namespace").map((one) => one.value.metadata.name));
      for (const one of made) if (!fresh.has(one.value.metadata.namespace ?? "")) await send(one, true);
      ready.value = made;
    } catch (error) {
      refusal.value = told(error);
    }
  };
  const apply = async () => {
    const made = ready.value ?? [];
    for (const one of made) if (!(await doing(`${one.kind.kind} ${one.value.metadata.name} is created`, () => send(one, false)))) return;
    const first = made[0];
    if (first !== undefined) go(href("object", { kind: nameOf(first.kind), in: first.value.metadata.namespace, name: first.value.metadata.name }));
  };
  return (
    <div class="edit">
      <div class="tools">
        <button type="button" class="button" onClick={() => void check()}>
          Check
        </button>
        <button type="button" class="button button-primary" disabled={ready.value === undefined} onClick={() => void apply()}>
          Create
        </button>
        {ready.value === undefined ? null : (
          <span class="note is-ok">
            The server would take <Said text={ready.value.map((one) => `${one.kind.kind} ${one.value.metadata.name}`).join(", ")} />
          </span>
        )}
      </div>
      {refusal.value === "" ? null : (
        <p class="failure-line" role="alert">
          <Said text={refusal.value} />
        </p>
      )}
      <div class="edit-both">
        <Code
          initial={initial.current}
          schemas={() => schemas.current}
          editable
          changed={(text) => {
            said.value = text;
            ready.value = undefined;
          }}
          at={(at) => (place.value = at)}
        />
        <aside class="edit-help" aria-label="About the field" tabIndex={0}>
          <Help place={place.value} />
        </aside>
      </div>
    </div>
  );
}
