/** How components take part in what is shared: collections, the stream of figures, answers that are asked for once. */

import { useSignal, type ReadonlySignal, type Signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";

import { look, type Selection, type State } from "../kube/collection";
import { aborted, ApiError, told } from "../kube/http";
import { follow } from "./live";

/** Objects as they are, for as long as the component is there. */
export function useObjects(selection: Selection | undefined): State {
  const name = JSON.stringify(selection ?? null);
  const [state, leave] = useMemo(() => (selection === undefined ? [undefined, () => undefined] : look(selection)) as [ReadonlySignal<State> | undefined, () => void], [name]);
  useEffect(() => leave, [leave]);
  return state?.value ?? NONE;
}

const NONE: State = { status: "ready", partial: false, stale: false, error: undefined, rows: [], columns: [] };

/** Figures of the mesh flow while the component is there. */
export function useFigures(): void {
  useEffect(() => follow(), []);
}

export interface Answer<T> {
  readonly value: T | undefined;
  readonly error: ApiError | undefined;
  readonly busy: boolean;
  readonly again: () => void;
}

/** Asks once, and again where what it depends on changes, or somebody says so; `every` so many milliseconds, if that is said. */
export function useAnswer<T>(ask: (signal: AbortSignal) => Promise<T>, on: readonly unknown[], every?: number): Answer<T> {
  const value: Signal<T | undefined> = useSignal(undefined);
  const error: Signal<ApiError | undefined> = useSignal(undefined);
  const busy = useSignal(true);
  const turn = useSignal(0);
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const once = async () => {
      busy.value = true;
      try {
        value.value = await latest.current(stop.signal);
        error.value = undefined;
      } catch (thrown) {
        if (aborted(thrown) || stop.signal.aborted) return;
        error.value = thrown instanceof ApiError ? thrown : new ApiError(0, "", told(thrown));
      }
      busy.value = false;
      if (every !== undefined && !stop.signal.aborted) timer = setTimeout(() => void (document.hidden ? (timer = setTimeout(() => void once(), every)) : once()), every);
    };
    void once();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [...on, turn.value]);
  return { value: value.value, error: error.value, busy: busy.value, again: () => (turn.value += 1) };
}

/** The title of the page, as the tab of the browser has it. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} \u00b7 weft`;
  }, [title]);
}
