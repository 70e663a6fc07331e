/** What differs between two texts, as lines taken out and put in. */

import type { JSX } from "preact";

import { diff, hunks } from "../model/diff";
import { plain } from "../model/text";

const SIGNS = { same: " ", removed: "\u2212", added: "+" } as const;

export function Difference({ before, after }: { before: string; after: string }): JSX.Element {
  const lines = diff(before, after);
  const found = hunks(lines);
  if (found.length === 0) return <p class="note">Nothing differs.</p>;
  const [out, put] = [lines.filter((line) => line.change === "removed").length, lines.filter((line) => line.change === "added").length];
  return (
    <div class="diff" role="region" tabIndex={0} aria-label={`${put} lines put in, ${out} taken out`}>
      {found.map((hunk, index) => (
        <div key={index}>
          {hunk.skipped > 0 ? <p class="diff-gap">{hunk.skipped} lines are the same</p> : null}
          <pre>
            {hunk.lines.map((line, at) => (
              <span key={at} class={`diff-line diff-${line.change}`}>
                <span class="diff-sign">{SIGNS[line.change]} </span>
                {plain(line.text)}
                {"\n"}
              </span>
            ))}
          </pre>
        </div>
      ))}
    </div>
  );
}
