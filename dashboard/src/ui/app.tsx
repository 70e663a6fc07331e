/** The page's frame: where one can go, which namespace is looked at, who is here, whether figures flow. The rest is a page each. */

import type { ComponentType, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { NAMESPACES } from "../kube/resource";
import { offered, session, signIn, signOut } from "../kube/session";
import { SignIn } from "../pages/signin";
import { Overview } from "../pages/overview";
import { useAnswer, useObjects } from "./hooks";
import { Dialog, confirm, show } from "./dialog";
import { Icon } from "./icons";
import { KEYS, on, PAGES } from "./keys";
import { lazy, type Lazy } from "./lazy";
import { link, refusal } from "./live";
import { openPalette } from "./palette";
import { asked, go, href, lookAt, namespace, page } from "./route";
import { theme, type Theme } from "./theme";
import { Toasts } from "./toast";
import { Ago, Empty, Loading, Said } from "./words";
import { json } from "../kube/http";
import { text } from "../kube/read";

const pages: Readonly<Record<string, ComponentType & Partial<Lazy<object>>>> = {
  overview: Overview,
  traffic: lazy("traffic", async () => (await import("../pages/traffic")).Traffic),
  workloads: lazy("workloads", async () => (await import("../pages/workloads")).Workloads),
  workload: lazy("the workload", async () => (await import("../pages/workload")).Workload),
  pod: lazy("the pod", async () => (await import("../pages/pod")).Pod),
  rollouts: lazy("rollouts", async () => (await import("../pages/rollouts")).Rollouts),
  traces: lazy("traces", async () => (await import("../pages/traces")).Traces),
  tap: lazy("tap", async () => (await import("../pages/tap")).Tap),
  logs: lazy("logs", async () => (await import("../pages/logs")).Logs),
  faults: lazy("faults", async () => (await import("../pages/faults")).Faults),
  nodes: lazy("nodes", async () => (await import("../pages/nodes")).Nodes),
  node: lazy("the node", async () => (await import("../pages/nodes")).Node),
  kinds: lazy("kinds", async () => (await import("../pages/objects")).Kinds),
  objects: lazy("objects", async () => (await import("../pages/objects")).Objects),
  object: lazy("the object", async () => (await import("../pages/object")).ObjectPage),
  create: lazy("the editor", async () => (await import("../pages/object")).Create),
};

/** The code of the page that is gone to, while the server says who is here. */
pages[page.peek()]?.early?.();

export function App(): JSX.Element {
  const here = session.value;
  if (here === undefined) return <Loading what="weft" />;
  if (here.user === "") return <SignIn ways={here} />;
  return <Frame />;
}

function Frame(): JSX.Element {
  const shown = page.value;
  const Page = pages[shown];
  useEffect(() => {
    const ends = [
      on("?", showKeys),
      on(":", openPalette),
      on("n", () => document.querySelector<HTMLElement>("#namespace")?.focus()),
      on("c", () => go(href("create"))),
    ];
    return () => ends.forEach((end) => end());
  }, []);
  useEffect(() => {
    const given = offered.value;
    if (given === undefined) return;
    confirm("Another user's link", `You are ${session.peek()?.user ?? "somebody"} here. The link that was opened signs you in as whoever made it.`, "Become that user", () => void signIn({ link: given.link }));
    offered.value = undefined;
  }, [offered.value]);
  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to the page
      </a>
      <Side shown={shown} />
      <div class="content">
        <Bar />
        <main id="main" tabIndex={-1} key={`${shown} ${asked("kind")} ${asked("in")} ${asked("name")}`}>
          {Page === undefined ? <Empty title="No such page">The address names none that there is.</Empty> : <Page />}
        </main>
      </div>
      <Toasts />
      <Dialog />
    </div>
  );
}

/** Pages that stand below another. */
const ABOVE: Readonly<Record<string, string>> = { workload: "workloads", pod: "workloads", node: "nodes", objects: "kinds", object: "kinds", create: "kinds" };

function Side({ shown }: { shown: string }): JSX.Element {
  const at = ABOVE[shown] ?? shown;
  const own = useRef<HTMLElement>(null);
  useEffect(() => {
    // Where there is little room, pages stand in a row that is moved.
    const here = own.current?.querySelector<HTMLElement>("[aria-current]");
    if (own.current !== null && here) own.current.scrollLeft = here.offsetLeft - 60;
  }, [at]);
  return (
    <nav ref={own} class="side" aria-label="Pages">
      <a class="brand" href={href("overview")}>
        <span class="brand-mark" aria-hidden="true" />
        weft
      </a>
      <ul>
        {PAGES.map(({ page, title, key }) => (
          <li key={page}>
            <a href={href(page)} aria-current={page === at ? "page" : undefined} title={`g ${key}`}>
              <Icon name={page} />
              <span>{title}</span>
            </a>
          </li>
        ))}
      </ul>
      <Version />
    </nav>
  );
}

function Version(): JSX.Element {
  const version = useAnswer((signal) => json("/version", { signal }), []);
  return <p class="version">{version.value === undefined ? "" : <Said text={text(version.value, "gitVersion")} />}</p>;
}

function Bar(): JSX.Element {
  return (
    <header class="bar">
      <NamespaceChoice />
      <button type="button" class="button find-button" aria-label="Go to…" onClick={openPalette} title=": or Ctrl-K">
        <Icon name="search" />
        <span>Go to&hellip;</span>
      </button>
      <span class="bar-space" />
      <Flow />
      <ThemeChoice />
      <Who />
    </header>
  );
}

function NamespaceChoice(): JSX.Element {
  const namespaces = useObjects({ resource: NAMESPACES, every: 20_000 });
  const names = namespaces.rows.map((row) => row.object.metadata.name).sort();
  const at = namespace.value;
  // Who may not list them can still name one.
  if (namespaces.status === "failed")
    return (
      <label class="namespace">
        <span>Namespace</span>
        <input id="namespace" value={at} placeholder="all" spellcheck={false} onChange={(event) => lookAt(event.currentTarget.value.trim())} />
      </label>
    );
  return (
    <label class="namespace">
      <span>Namespace</span>
      <select id="namespace" value={at} onChange={(event) => lookAt(event.currentTarget.value)}>
        <option value="">all</option>
        {at !== "" && !names.includes(at) ? <option value={at}>{at}</option> : null}
        {names.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function Flow(): JSX.Element | null {
  const words: Readonly<Record<string, readonly [string, string]>> = {
    live: ["is-ok", "live"],
    connecting: ["is-busy", "connecting"],
    cut: ["is-bad", "cut, trying again"],
    refused: ["is-off", "no figures"],
  };
  const said = words[link.value];
  if (said === undefined) return null;
  return (
    <span class={`flow ${said[0]}`} role="status" title={refusal.value || "figures of the mesh, each second"}>
      <span class="flow-dot" aria-hidden="true" />
      {said[1]}
    </span>
  );
}

const NEXT: Readonly<Record<Theme, Theme>> = { auto: "light", light: "dark", dark: "auto" };
const THEME_ICONS: Readonly<Record<Theme, string>> = { auto: "auto", light: "sun", dark: "moon" };

function ThemeChoice(): JSX.Element {
  const label = `Colours: ${theme.value === "auto" ? "as the system has them" : theme.value}`;
  return (
    <button type="button" class="quiet" aria-label={label} title={label} onClick={() => (theme.value = NEXT[theme.value])}>
      <Icon name={THEME_ICONS[theme.value]} />
    </button>
  );
}

function Who(): JSX.Element {
  const here = session.value;
  return (
    <details class="menu">
      <summary title="Who you are here">
        <Said text={here?.user ?? ""} />
      </summary>
      <div class="menu-body">
        <p class="muted">
          {here === undefined || here.groups.length === 0 ? "no groups" : <Said text={here.groups.join(", ")} />}
        </p>
        {here?.expires ? (
          <p class="muted">
            until <Ago time={here.expires} />
          </p>
        ) : null}
        <button type="button" class="button" onClick={showKeys}>
          Keyboard <kbd>?</kbd>
        </button>
        <button type="button" class="button" onClick={() => void signOut()}>
          Sign out
        </button>
      </div>
    </details>
  );
}

function showKeys(): void {
  show("Keyboard", () => {
    const groups = [...new Set(KEYS.map((key) => key.group))];
    return (
      <div class="keys">
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {KEYS.filter((key) => key.group === group).map((key) => (
                <div key={key.keys}>
                  <dt>
                    <kbd>{key.keys}</kbd>
                  </dt>
                  <dd>{key.does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    );
  });
}
