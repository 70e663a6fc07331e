/**
 * A table of any length: only the rows that are seen are drawn. It is sorted by a click on a column, and walked with the keyboard.
 *
 * Invariants: rows are `ROW_PIXELS` high, so that the place of each is known without drawing it; a row keeps its element while it is seen; a
 * reader of the screen hears how many there are.
 */

import { useSignal, type Signal } from "@preact/signals";
import { Component, type ComponentChildren, type JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";

import { go } from "./route";

const ROW_PIXELS = 34;
/** Rows drawn above and below of what is seen. */
const BEYOND = 16;
/** It is drawn anew after so many rows of scrolling, and not for each pixel. */
const STEP_PIXELS = ROW_PIXELS * 8;

const WORDS = new Intl.Collator(undefined, { numeric: true });

export interface Col<Row> {
  readonly id: string;
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** What it is sorted by. */
  readonly by?: (row: Row) => string | number;
  /** In pixels; the rest is shared by those that say none. */
  readonly width?: number;
  readonly right?: boolean;
  /** Left out where there is little room. */
  readonly spare?: boolean;
  readonly hint?: string | undefined;
}

interface LineProps<Row> {
  readonly row: Row;
  readonly cols: readonly Col<Row>[];
  readonly at: number;
  readonly current: Signal<number>;
}

/** A row, which is drawn anew where it is another one or what it reads has changed: not because its neighbours come and go. */
class Line<Row> extends Component<LineProps<Row>> {
  override shouldComponentUpdate(next: LineProps<Row>, state: object): boolean {
    const { row, cols, at } = this.props;
    return state !== this.state || next.row !== row || next.cols !== cols || next.at !== at;
  }

  override render({ row, cols, at, current }: LineProps<Row>): JSX.Element {
    return (
      <tr data-at={at} tabIndex={-1} aria-rowindex={at + 2} class={current.value === at ? "current" : undefined} onFocus={() => (current.value = at)}>
        {cols.map((col) => (
          <td key={col.id} class={`${col.right ? "right" : ""} ${col.spare ? "spare" : ""}`}>
            {col.cell(row)}
          </td>
        ))}
      </tr>
    );
  }
}

interface Props<Row> {
  readonly label: string;
  readonly rows: readonly Row[];
  readonly cols: readonly Col<Row>[];
  readonly id: (row: Row) => string;
  readonly address?: (row: Row) => string | undefined;
  readonly keys?: Readonly<Record<string, (row: Row) => void>>;
  readonly sort?: string;
  readonly descending?: boolean;
  /** All rows at once, in the page's own flow: for short tables. */
  readonly short?: boolean;
}

export function Table<Row>({ label, rows, cols, id, address, keys = {}, sort, descending = false, short = false }: Props<Row>): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const top = useSignal(0);
  const height = useSignal(600);
  const sorted = useSignal({ by: sort ?? "", down: descending });
  const current = useSignal(-1);
  const { by, down } = sorted.value;
  const order = useMemo(() => {
    const col = cols.find((col) => col.id === by);
    if (col?.by === undefined) return rows;
    const value = col.by;
    // What they are sorted by is read once a row: of thousands, each is compared a dozen times.
    const keyed = rows.map((row) => ({ row, key: value(row) }));
    keyed.sort(({ key: left }, { key: right }) => (typeof left === "number" && typeof right === "number" ? left - right : WORDS.compare(String(left), String(right))));
    const compared = keyed.map(({ row }) => row);
    return down ? compared.reverse() : compared;
  }, [rows, cols, by, down]);
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null || short) return undefined;
    const seen = new ResizeObserver(() => (height.value = element.clientHeight));
    seen.observe(element);
    return () => seen.disconnect();
  }, [short]);
  const first = short ? 0 : Math.max(0, Math.floor(top.value / ROW_PIXELS) - BEYOND);
  const last = short ? order.length : Math.min(order.length, Math.ceil((top.value + STEP_PIXELS + height.value) / ROW_PIXELS) + BEYOND);
  const drawn = order.slice(first, last);
  useEffect(() => {
    if (current.value >= 0) box.current?.querySelector<HTMLElement>(`tr[data-at="${current.value}"]`)?.focus({ preventScroll: true });
  }, [current.value, first, last]);
  const move = (to: number) => {
    const at = Math.max(0, Math.min(order.length - 1, to));
    current.value = at;
    const element = box.current;
    if (element === null || short) return;
    const above = at * ROW_PIXELS;
    if (above < element.scrollTop) element.scrollTop = above;
    else if (above + ROW_PIXELS * 2 > element.scrollTop + element.clientHeight) element.scrollTop = above + ROW_PIXELS * 2 - element.clientHeight;
  };
  const press = (event: KeyboardEvent) => {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement || event.altKey || event.metaKey) return;
    const on = event.target instanceof Element ? event.target.closest("tr[data-at]") : null;
    const here = on === null ? current.value : Number(on.getAttribute("data-at"));
    const page = Math.max(1, Math.floor(height.value / ROW_PIXELS) - 2);
    const steps: Record<string, number> = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -order.length, End: order.length };
    const name = event.ctrlKey ? `ctrl-${event.key}` : event.key;
    const step = event.ctrlKey ? undefined : steps[event.key];
    const row = order[here];
    if (step !== undefined) move(here < 0 ? 0 : here + step);
    else if (event.key === "Enter" && row !== undefined && (on === event.target || event.target === event.currentTarget)) {
      const to = address?.(row);
      if (to !== undefined) go(to);
    } else if (row !== undefined && keys[name] !== undefined) keys[name](row);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      ref={box}
      class={short ? "table table-short" : "table"}
      tabIndex={0}
      role="region"
      aria-label={label}
      onScroll={short ? undefined : (event) => (top.value = Math.floor(event.currentTarget.scrollTop / STEP_PIXELS) * STEP_PIXELS)}
      onKeyDown={press}
    >
      <table aria-rowcount={order.length + 1}>
        <colgroup>
          {cols.map((col) => (
            <col key={col.id} class={col.spare ? "spare" : undefined} style={col.width === undefined ? undefined : { width: `${col.width}px` }} />
          ))}
        </colgroup>
        <thead>
          <tr>
            {cols.map((col) => {
              const named = [col.right ? "right" : "", col.spare ? "spare" : ""].join(" ");
              const is = col.by === undefined ? undefined : by !== col.id ? "none" : down ? "descending" : "ascending";
              return (
                <th key={col.id} scope="col" class={named} aria-sort={is} title={col.hint}>
                  {col.by === undefined ? (
                    col.title
                  ) : (
                    <button type="button" onClick={() => (sorted.value = { by: col.id, down: by === col.id ? !down : false })}>
                      {col.title}
                      <span class="sort" aria-hidden="true">
                        {is === "ascending" ? "\u2191" : is === "descending" ? "\u2193" : ""}
                      </span>
                    </button>
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {first > 0 ? <tr class="gap" aria-hidden="true"><td colSpan={cols.length} style={{ height: `${first * ROW_PIXELS}px` }} /></tr> : null}
          {drawn.map((row, index) => {
            const at = first + index;
            return <Line key={id(row)} row={row} cols={cols} at={at} current={current} />;
          })}
          {last < order.length ? <tr class="gap" aria-hidden="true"><td colSpan={cols.length} style={{ height: `${(order.length - last) * ROW_PIXELS}px` }} /></tr> : null}
        </tbody>
      </table>
    </div>
  );
}
