/** Objects as YAML and back; its code is loaded with the first that is shown. */

import { parseDocument, stringify } from "yaml";

export function toYaml(value: unknown): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });
}

/** Without what the server keeps for itself. */
export function readable(object: unknown): string {
  const copy = structuredClone(object) as { metadata?: { managedFields?: unknown } };
  if (copy.metadata !== undefined) delete copy.metadata.managedFields;
  return toYaml(copy);
}

export interface Fault {
  readonly from: number;
  readonly to: number;
  readonly message: string;
}

/** The value of a text, or what keeps it from being one. Aliases are bounded, as they could be a whole lot of nothing. */
export function fromYaml(text: string): { readonly value: unknown; readonly faults: readonly Fault[] } {
  const document = parseDocument(text, { prettyErrors: false });
  const faults = document.errors.map((error): Fault => ({ from: error.pos[0], to: error.pos[1], message: error.message }));
  if (faults.length > 0) return { value: undefined, faults };
  try {
    return { value: document.toJS({ maxAliasCount: 100 }), faults: [] };
  } catch (error) {
    return { value: undefined, faults: [{ from: 0, to: text.length, message: error instanceof Error ? error.message : "not to be read" }] };
  }
}
