/** The page's few pictures, drawn in lines of the text's colour. */

import type { JSX } from "preact";

const PATHS: Readonly<Record<string, string>> = {
  overview: "M3 12a9 9 0 1 1 18 0M12 12l4-4M6 16h12",
  traffic: "M5 6a2 2 0 1 0 .1 0M19 6a2 2 0 1 0 .1 0M12 18a2 2 0 1 0 .1 0M7 6h10M6.4 7.6 10.8 16M17.6 7.6 13.2 16",
  workloads: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  rollouts: "M4 18h5v-5h5V8h6M16 4l4 4-4 4",
  traces: "M4 6h10M8 12h8M12 18h8",
  tap: "M3 12h4l3-8 4 16 3-8h4",
  logs: "M5 5h14M5 10h14M5 15h9M5 20h6",
  faults: "M13 3 5 14h6l-1 7 8-11h-6z",
  nodes: "M4 5h16v6H4zM4 13h16v6H4zM8 8h.1M8 16h.1",
  kinds: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  search: "M10.5 4a6.5 6.5 0 1 0 .1 0M15.5 15.5 20 20",
  menu: "M4 7h16M4 12h16M4 17h16",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  sun: "M12 8a4 4 0 1 0 .1 0M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M19 5l-2 2M7 17l-2 2",
  moon: "M20 14A8 8 0 0 1 10 4a8 8 0 1 0 10 10z",
  auto: "M12 4a8 8 0 1 0 .1 0M12 4v16",
};

export function Icon({ name }: { name: string }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 24 24" width="18" height="18" aria-hidden="true">
      <path d={PATHS[name] ?? ""} fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}

/** Signs on a picture's arrows and nodes: 12 by 12, drawn, as fonts do not have all of them. */
const SIGNS: Readonly<Record<string, string>> = {
  lock: "M2.5 5.5h7v5.5h-7zM4 5.5V4a2 2 0 0 1 4 0v1.5",
  breaker: "M7 .8 2.5 6.8h3.2L5 11.2l4.5-6H6.3z",
  fault: "M2.2 2.2l7.6 7.6M9.8 2.2l-7.6 7.6",
  retry: "M10 4.2A4.4 4.4 0 1 0 10.4 7M10.4 1.6v2.8H7.6",
  timeout: "M6 2.2a4.3 4.3 0 1 0 .1 0M6 4v2.6l1.8 1M4.6.8h2.8",
  weight: "M2 10 10 2M3 2.6a1 1 0 1 0 .1 0M9 7.6a1 1 0 1 0 .1 0",
};

export const SIGN_PIXELS = 12;

export function SignMark({ name, x, y }: { name: string; x: number; y: number }): JSX.Element {
  return <path class={`glyph glyph-${name}`} d={SIGNS[name] ?? ""} transform={`translate(${x},${y})`} />;
}

export function Sign({ name }: { name: string }): JSX.Element {
  return (
    <svg class="glyph-box" viewBox="0 0 12 12" width={SIGN_PIXELS} height={SIGN_PIXELS} aria-hidden="true">
      <SignMark name={name} x={0} y={0} />
    </svg>
  );
}
