/**
 * Curves over time: uPlot, of which nothing is known outside of this file.
 *
 * Invariants: a chart is drawn when its values, its room or the colours change and at no other time; the same numbers are there as a table.
 */

import "uplot/dist/uPlot.min.css";

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import UPlot from "uplot";

import { clock } from "../model/format";
import { theme } from "./theme";

export interface Curve {
  readonly name: string;
  /** A colour's name among the page's tokens. */
  readonly colour: string;
  readonly values: readonly (number | null)[];
}

interface Props {
  readonly title: string;
  /** Seconds since 1970. */
  readonly times: readonly number[];
  readonly curves: readonly Curve[];
  readonly shown: (value: number) => string;
  readonly height?: number;
}

function token(name: string): string {
  const probe = document.createElement("span");
  probe.className = `probe-${name}`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

const TABLE_ROWS_MAX = 60;

export function Chart({ title, times, curves, shown, height = 150 }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot | undefined>(undefined);
  const names = curves.map((curve) => curve.name).join("|");
  const chosen = theme.value;
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const ink = token("muted");
    const line = token("line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const made = new UPlot(
      {
        width: Math.max(1, element.clientWidth),
        height,
        cursor: { y: false, points: { size: 6 } },
        legend: { live: true },
        scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [
          { ...axis, values: (_plot, at) => at.map((time) => clock(time * 1000).slice(0, (at[1] ?? 60) - (at[0] ?? 0) < 60 ? 8 : 5)), space: 70, size: 26 },
          { ...axis, values: (_plot, at) => at.map((value) => shown(value)), size: 62, space: 34 },
        ],
        series: [
          { value: (_plot, time) => (time === null ? "" : clock(time * 1000)), label: "at" },
          ...curves.map((curve) => ({
            label: curve.name,
            stroke: token(curve.colour),
            width: 1.5,
            points: { show: false },
            value: (_plot: UPlot, value: number | null) => (value === null ? "" : shown(value)),
          })),
        ],
      },
      [[...times], ...curves.map((curve) => [...curve.values])] as UPlot.AlignedData,
      element,
    );
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: Math.max(1, element.clientWidth), height }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [names, chosen, height]);
  useEffect(() => {
    plot.current?.setData([[...times], ...curves.map((curve) => [...curve.values])] as UPlot.AlignedData);
  }, [times, curves]);
  const from = Math.max(0, times.length - TABLE_ROWS_MAX);
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={box} class="plot" aria-hidden="true" />
      <details class="data">
        <summary>Show data</summary>
        <div class="table-scroll" tabIndex={0} role="region" aria-label={`${title}, as a table`}>
          <table>
            <thead>
              <tr>
                <th scope="col">Time</th>
                {curves.map((curve) => (
                  <th key={curve.name} scope="col">
                    {curve.name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {times.slice(from).map((time, index) => (
                <tr key={time}>
                  <td>{clock(time * 1000)}</td>
                  {curves.map((curve) => {
                    const value = curve.values[from + index];
                    return <td key={curve.name}>{value === null || value === undefined ? "" : shown(value)}</td>;
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}
