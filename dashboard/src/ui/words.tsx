/** Small things that are said everywhere: names, times, how something is. Never by colour alone: a sign and a word go with it. */

import type { ComponentChildren, JSX } from "preact";

import type { Health } from "../model/mesh";
import { ago, exact, span } from "../model/format";
import { plain } from "../model/text";
import type { Standing } from "../model/workload";
import { ApiError } from "../kube/http";
import type { State } from "../kube/collection";
import { now } from "./now";
import { href } from "./route";

/** Text of somebody else. */
export function Said({ text, class: named = "" }: { text: string; class?: string }): JSX.Element {
  return <bdi class={`said ${named}`}>{plain(text)}</bdi>;
}

export function Ago({ time }: { time: string | undefined }): JSX.Element {
  if (time === undefined || time === "") return <span class="muted">&ndash;</span>;
  return (
    <time dateTime={time} title={exact(time)}>
      {ago(time, now.value)}
    </time>
  );
}

/** The same where a column's head says that it is an age. */
export function Age({ time }: { time: string | undefined }): JSX.Element {
  const when = Date.parse(time ?? "");
  if (time === undefined || !Number.isFinite(when)) return <span class="muted">&ndash;</span>;
  return (
    <time dateTime={time} title={exact(time)}>
      {span((now.value - when) / 1000)}
    </time>
  );
}

const SIGNS: Readonly<Record<Standing, string>> = { ok: "\u2713", busy: "\u25d4", bad: "\u2715", off: "\u25cb" };

export function Standing({ is, word, why }: { is: Standing; word: string; why?: string | undefined }): JSX.Element {
  return (
    <span class={`standing is-${is}`} title={why ? plain(why) : undefined}>
      <span class="sign" aria-hidden="true">
        {SIGNS[is]}
      </span>
      <Said text={word} />
    </span>
  );
}

const OF_HEALTH: Readonly<Record<Health, readonly [Standing, string]>> = { ok: ["ok", "ok"], degraded: ["busy", "degraded"], failing: ["bad", "failing"], idle: ["off", "idle"] };

export function HealthWord({ health }: { health: Health }): JSX.Element {
  const [standing, word] = OF_HEALTH[health];
  return <Standing is={standing} word={word} />;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children === undefined ? null : <p>{children}</p>}
    </div>
  );
}

/** Why there is nothing, in the words of the API. */
export function Failure({ error, again }: { error: ApiError; again?: (() => void) | undefined }): JSX.Element {
  const title = error.forbidden ? "Not yours to see" : error.code === 404 ? "Not there" : error.code === 0 ? "Out of reach" : "Refused";
  return (
    <div class="failure" role="alert">
      <p class="empty-title">{title}</p>
      <p>
        <Said text={error.message} />
      </p>
      {again === undefined || error.forbidden ? null : (
        <button type="button" class="button" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

export function Loading({ what }: { what: string }): JSX.Element {
  return (
    <div class="loading" role="status">
      <span class="pulse" aria-hidden="true" />
      Loading {what}
    </div>
  );
}

/** What stands in place of a list, as long as it is none. */
export function instead(state: State, what: string, none: ComponentChildren): JSX.Element | undefined {
  if (state.status === "failed" && state.error !== undefined) return <Failure error={state.error} />;
  if (state.status === "loading") return <Loading what={what} />;
  if (state.rows.length === 0 && !state.partial) return <Empty title={`No ${what}`}>{none}</Empty>;
  return undefined;
}

/** That what is shown may be old, or is not all yet. */
export function Freshness({ state }: { state: State }): JSX.Element | null {
  if (state.stale) return <span class="note is-busy">connection cut, showing what was</span>;
  return state.partial && state.status === "ready" ? <span class="note">more is coming</span> : null;
}

export function Section({ title, aside, children, id }: { title: string; aside?: ComponentChildren; children: ComponentChildren; id?: string }): JSX.Element {
  return (
    <section class="section" aria-label={title} id={id}>
      <header class="section-head">
        <h2>{title}</h2>
        <div class="aside">{aside}</div>
      </header>
      {children}
    </section>
  );
}

export function Facts({ of }: { of: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <dl class="facts">
      {of
        .filter(([, value]) => value !== undefined && value !== null && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

export interface Tab {
  readonly id: string;
  readonly title: string;
  readonly address: string;
}

export function Tabs({ of, at, label }: { of: readonly Tab[]; at: string; label: string }): JSX.Element {
  return (
    <nav class="tabs" aria-label={label}>
      {of.map((tab) => (
        <a key={tab.id} href={tab.address} aria-current={tab.id === at ? "page" : undefined}>
          {tab.title}
        </a>
      ))}
    </nav>
  );
}

/** How much of something is used: a bar, and the same in words. */
export function Meter({ share, text }: { share: number; text: string }): JSX.Element {
  const part = Number.isFinite(share) ? Math.min(1, Math.max(0, share)) : 0;
  const level = part >= 0.9 ? "is-bad" : part >= 0.75 ? "is-busy" : "is-ok";
  return (
    <span class="meter">
      <span class="meter-bar" aria-hidden="true">
        <span class={`meter-fill ${level}`} style={{ width: `${(part * 100).toFixed(1)}%` }} />
      </span>
      <span>{text}</span>
    </span>
  );
}

export function Link({ page, query, children, class: named }: { page: string; query?: Record<string, string | undefined>; children: ComponentChildren; class?: string }): JSX.Element {
  return (
    <a href={href(page, query)} class={named}>
      {children}
    </a>
  );
}
