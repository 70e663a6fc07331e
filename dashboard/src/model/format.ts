/**
 * Numbers and times as people read them: three digits where three say it, the unit always there.
 *
 * Invariant: pure; "now" is handed in. What is no number is a dash.
 */

export const NOTHING = "\u2013";

function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function stepped(value: number, by: number, units: readonly string[]): string {
  let at = 0;
  let rest = value;
  // What would be rounded up to a whole step is one.
  while (Math.abs(rest) >= by - 0.5 && at < units.length - 1) {
    rest /= by;
    at += 1;
  }
  return `${digits(rest)}${units[at] ?? ""}`;
}

/** Something per second. */
export function rate(perSecond: number): string {
  if (!Number.isFinite(perSecond)) return NOTHING;
  if (perSecond > 0 && perSecond < 0.01) return "<0.01/s";
  return `${stepped(perSecond, 1000, ["", "k", "M", "G"])}/s`;
}

export function whole(value: number): string {
  if (!Number.isFinite(value)) return NOTHING;
  return value >= 10_000 ? stepped(value, 1000, ["", "k", "M", "G"]) : value.toFixed(0);
}

/** A share from 0 to 1 in percent. What is short of everything is never said to be all of it. */
export function percent(share: number): string {
  if (!Number.isFinite(share)) return NOTHING;
  if (share >= 1) return "100 %";
  if (share <= 0) return "0 %";
  const value = share * 100;
  if (value < 0.01) return "<0.01 %";
  if (value >= 99.995) return "99.99 %";
  return `${value >= 99.95 || value < 0.1 ? value.toFixed(2) : value.toFixed(1)} %`;
}

/** A length of time that was measured, from microseconds. */
export function micros(value: number): string {
  if (!Number.isFinite(value)) return NOTHING;
  if (value < 999.5) return `${digits(value)} \u00b5s`;
  if (value < 999_500) return `${digits(value / 1e3)} ms`;
  return `${digits(value / 1e6)} s`;
}

export function bytes(value: number): string {
  if (!Number.isFinite(value)) return NOTHING;
  return stepped(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]);
}

/** Cores of a processor, from their thousandths. */
export function cores(milli: number): string {
  if (!Number.isFinite(milli)) return NOTHING;
  return milli < 1000 ? `${digits(milli)}m` : `${digits(milli / 1000)}`;
}

const UNITS: readonly (readonly [number, string])[] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "m"],
  [1, "s"],
];

/** A length of time in its two largest units. */
export function span(seconds: number): string {
  if (!Number.isFinite(seconds)) return NOTHING;
  let rest = Math.max(0, Math.floor(seconds));
  const parts: string[] = [];
  for (const [size, unit] of UNITS) {
    const here = Math.floor(rest / size);
    rest -= here * size;
    if (here > 0) parts.push(`${here}${unit}`);
    // Beside ten days nobody asks for hours.
    if (parts.length === 2 || (parts.length === 1 && here >= 10 && unit !== "s")) break;
  }
  return parts.length === 0 ? "0s" : parts.join(" ");
}

/** How long ago a time was; "in …" for what is to come. */
export function ago(time: string, now: number): string {
  const when = Date.parse(time);
  if (!Number.isFinite(when)) return NOTHING;
  const seconds = (now - when) / 1000;
  // Clocks differ by a little.
  if (seconds > -2) return `${span(seconds)} ago`;
  return `in ${span(-seconds)}`;
}

/** The exact time, where one looks from. */
export function exact(time: string): string {
  const when = new Date(time);
  if (Number.isNaN(when.getTime())) return time;
  return `${when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })} (${when.toISOString()})`;
}

export function clock(time: number): string {
  return new Date(time).toLocaleTimeString(undefined, { hour12: false });
}

const SUFFIXES: Readonly<Record<string, number>> = {
  n: 1e-9, u: 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18,
  Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60,
};

/** A quantity of Kubernetes, as `250m` or `64Mi`; none where it is none. */
export function quantity(said: unknown): number | undefined {
  if (typeof said === "number") return said;
  if (typeof said !== "string") return undefined;
  const parts = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$/.exec(said.trim());
  if (parts === null) return undefined;
  const factor = SUFFIXES[parts[2] ?? ""];
  const value = Number(parts[1]);
  return factor === undefined || !Number.isFinite(value) ? undefined : value * factor;
}

/** Seconds of a duration as `10m`, `1h30m` or `500ms`. */
export function seconds(said: string): number | undefined {
  if (!/^(?:[0-9.]+(?:ms|us|ns|h|m|s))+$/.test(said)) return undefined;
  const factors: Readonly<Record<string, number>> = { h: 3600, m: 60, s: 1, ms: 1e-3, us: 1e-6, ns: 1e-9 };
  let sum = 0;
  for (const [, value, unit] of said.matchAll(/([0-9.]+)(ms|us|ns|h|m|s)/g)) sum += Number(value) * (factors[unit ?? ""] ?? 0);
  return Number.isFinite(sum) ? sum : undefined;
}

/** One of something, or several. */
export function many(number: number, one: string, several = `${one}s`): string {
  return `${whole(number)} ${number === 1 ? one : several}`;
}
