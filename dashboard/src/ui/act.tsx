/** A control that changes something: it can be used if the user may do so, and says why not where he may not. */

import type { ComponentChildren, JSX } from "preact";

import { refusedBecause, type Action } from "../kube/access";

interface Props {
  readonly on: Action | readonly Action[];
  readonly act: () => void;
  readonly children: ComponentChildren;
  readonly danger?: boolean;
  readonly quiet?: boolean;
  readonly primary?: boolean;
  /** Why it makes no sense now. */
  readonly unless?: string | undefined;
  readonly label?: string;
}

export function Act({ on, act, children, danger, quiet, primary, unless, label }: Props): JSX.Element {
  const all = Array.isArray(on) ? (on as readonly Action[]) : [on as Action];
  const why = all.map(refusedBecause).find((why) => why !== "") ?? unless ?? "";
  const named = ["button", danger ? "button-danger" : "", quiet ? "button-quiet" : "", primary ? "button-primary" : ""].filter(Boolean).join(" ");
  return (
    <button type="button" class={named} disabled={why !== ""} title={why || undefined} aria-label={label} onClick={act}>
      {children}
    </button>
  );
}
