/**
 * Lines of logs: what level each says it is, which trace it names, in what order lines of several pods come.
 */

export type Level = "error" | "warn" | "info" | "debug" | "";

export interface LogLine {
  readonly id: number;
  readonly pod: string;
  readonly container: string;
  /** As the node noted it; milliseconds. */
  readonly at: number;
  readonly time: string;
  readonly text: string;
  readonly level: Level;
  readonly trace: string;
}

const LEVELS: readonly (readonly [RegExp, Level])[] = [
  [/^\W{0,3}(?:error|fatal|panic|critical)\b|\b(?:level|lvl|severity)["']?\s*[=:]\s*["']?(?:error|fatal|critical)|\b(?:ERROR|FATAL|PANIC)\b|panicked at/i, "error"],
  [/^\W{0,3}(?:warn|warning)\b|\b(?:level|lvl|severity)["']?\s*[=:]\s*["']?warn|\bWARN(?:ING)?\b/i, "warn"],
  [/^\W{0,3}(?:debug|trace)\b|\b(?:level|lvl|severity)["']?\s*[=:]\s*["']?(?:debug|trace)|\b(?:DEBUG|TRACE)\b/, "debug"],
  [/^\W{0,3}info\b|\b(?:level|lvl|severity)["']?\s*[=:]\s*["']?info|\bINFO\b/i, "info"],
];
/** Words beyond this say nothing of the level. */
const LOOKED_AT = 400;

export function level(text: string): Level {
  const head = text.slice(0, LOOKED_AT);
  return LEVELS.find(([pattern]) => pattern.test(head))?.[1] ?? "";
}

/** The trace that a line names: 32 hexadecimal digits, alone or in a `traceparent`. */
export function traceIn(text: string): string {
  return /(?<![0-9a-f])(?:00-)?([0-9a-f]{32})(?:-[0-9a-f]{16}-[0-9a-f]{2})?(?![0-9a-f])/.exec(text)?.[1] ?? "";
}

let last = 0;

/** A line as the API sends it with `timestamps=true`. */
export function logLine(pod: string, container: string, said: string): LogLine {
  const space = said.indexOf(" ");
  const time = space > 0 ? said.slice(0, space) : "";
  const at = Date.parse(time);
  const stamped = Number.isFinite(at);
  const text = stamped ? said.slice(space + 1) : said;
  last += 1;
  return { id: last, pod, container, at: stamped ? at : 0, time: stamped ? time : "", text, level: level(text), trace: traceIn(text) };
}

export interface Sieve {
  readonly find: string;
  readonly level: string;
  readonly regular: boolean;
}

const RANK: Readonly<Record<string, number>> = { error: 3, warn: 2, info: 1, "": 1, debug: 0 };

/** Which lines are shown; a regular expression that is none lets nothing be hidden, and says so. */
export function sieve({ find, level, regular }: Sieve): { readonly passes: (line: LogLine) => boolean; readonly error: string } {
  const least = level === "" ? -1 : (RANK[level] ?? -1);
  const words = find.toLowerCase();
  let pattern: RegExp | undefined;
  let error = "";
  if (regular && find !== "") {
    try {
      pattern = new RegExp(find, "i");
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : "no regular expression";
    }
  }
  const passes = (line: LogLine) => {
    if ((RANK[line.level] ?? 1) < least) return false;
    if (find === "" || error !== "") return true;
    return pattern === undefined ? line.text.toLowerCase().includes(words) || line.pod.includes(words) : pattern.test(line.text);
  };
  return { passes, error };
}
