/** Light or dark, as the system has it or the user chose; kept in the browser alone. */

import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const KEPT = "weft.theme";

function kept(): Theme {
  try {
    const said = localStorage.getItem(KEPT);
    return said === "light" || said === "dark" ? said : "auto";
  } catch {
    return "auto";
  }
}

export const theme = signal<Theme>(kept());

export function startTheme(): void {
  effect(() => {
    document.documentElement.dataset["theme"] = theme.value;
    try {
      localStorage.setItem(KEPT, theme.value);
    } catch {
      // Then it is the system's on the next visit.
    }
  });
}

/** Whether things may move by themselves. */
export function moves(): boolean {
  return !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}
