/** A part of the page whose code comes when it is first wanted. */

import { useSignal } from "@preact/signals";
import type { ComponentType, JSX } from "preact";
import { useEffect } from "preact/hooks";

import { Failure, Loading } from "./words";
import { ApiError } from "../kube/http";

export interface Lazy<Props> {
  (props: Props): JSX.Element;
  /** Has its code come before it is wanted. */
  readonly early: () => void;
}

export function lazy<Props extends object>(what: string, load: () => Promise<ComponentType<Props>>): Lazy<Props> {
  let came: ComponentType<Props> | undefined;
  const early = () => {
    load().then(
      (shown) => {
        came = shown;
      },
      // Whoever wants it asks again, and says so.
      () => undefined,
    );
  };
  function Lazy(props: Props): JSX.Element {
    const part = useSignal<{ readonly shown: ComponentType<Props> } | undefined>(came === undefined ? undefined : { shown: came });
    const failed = useSignal("");
    const turn = useSignal(0);
    useEffect(() => {
      if (part.peek() !== undefined) return;
      load().then(
        (shown) => {
          came = shown;
          part.value = { shown };
        },
        () => (failed.value = "this part of the page could not be loaded; the server may have been renewed"),
      );
    }, [turn.value]);
    if (part.value !== undefined) {
      const Shown = part.value.shown as ComponentType<object>;
      return <Shown {...props} />;
    }
    if (failed.value !== "") return <Failure error={new ApiError(0, "", failed.value)} again={() => ((failed.value = ""), (turn.value += 1))} />;
    return <Loading what={what} />;
  }
  return Object.assign(Lazy, { early });
}
