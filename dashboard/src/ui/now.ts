/** What time it is, for everything on the page that says how long ago something was: one clock, five seconds apart. */

import { signal } from "@preact/signals";

export const now = signal(Date.now());

const TICK_MILLIS = 5000;

export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) now.value = Date.now();
  }, TICK_MILLIS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) now.value = Date.now();
  });
}
