/** A curve without axes, beside the figure that it is the past of. */

import type { JSX } from "preact";

export function Spark({ values, label, bad = false }: { values: readonly number[]; label: string; bad?: boolean }): JSX.Element {
  const [width, height] = [120, 28];
  const top = values.reduce((most, value) => Math.max(most, value), 0) || 1;
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  const points = values.map((value, index) => `${(index * step).toFixed(1)},${(height - 2 - (Math.max(0, value) / top) * (height - 4)).toFixed(1)}`);
  return (
    <svg class={bad ? "spark spark-bad" : "spark"} viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      {points.length > 1 ? <polygon class="spark-area" points={`0,${height} ${points.join(" ")} ${width},${height}`} /> : null}
      <polyline class="spark-line" points={points.join(" ")} vector-effect="non-scaling-stroke" />
    </svg>
  );
}
