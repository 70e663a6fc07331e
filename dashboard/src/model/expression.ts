/**
 * Words that find or hide things: `errors > 1 and ns = vote or name ~ pay`.
 *
 * ```text
 * expression  = all { "or" all }
 * all         = one { ["and"] one }
 * one         = "!" one | field operator value | word          a word is looked for in every text
 * operator    = "=" | "!=" | "~" (part of) | "<" | "<=" | ">" | ">="
 * ```
 * Invariant: what cannot be understood is an error that says where; nothing is evaluated but this.
 */

export type Facts = Readonly<Record<string, string | number>>;
export type Test = (facts: Facts) => boolean;

export interface Read {
  readonly test: Test;
  readonly error: string;
}

const WORDS_MAX = 64;
const EVERYTHING: Test = () => true;

export function expression(said: string, fields: readonly string[]): Read {
  const words = said.match(/"[^"]*"|[<>!]=|[=~<>!]|[^\s=~<>!"]+/g) ?? [];
  if (words.length === 0) return { test: EVERYTHING, error: "" };
  if (words.length > WORDS_MAX) return { test: EVERYTHING, error: `more than ${WORDS_MAX} words` };
  const reader = new Reader(words, fields);
  const test = reader.any();
  return reader.error === "" ? { test, error: "" } : { test: EVERYTHING, error: reader.error };
}

const OPERATORS = new Set(["=", "!=", "~", "<", "<=", ">", ">="]);

class Reader {
  error = "";
  #at = 0;

  constructor(
    readonly words: readonly string[],
    readonly fields: readonly string[],
  ) {}

  any(): Test {
    const tests = [this.#all()];
    while (this.#peek()?.toLowerCase() === "or") {
      this.#at += 1;
      tests.push(this.#all());
    }
    return tests.length === 1 ? (tests[0] as Test) : (facts) => tests.some((test) => test(facts));
  }

  #peek(): string | undefined {
    return this.words[this.#at];
  }

  #all(): Test {
    const tests = [this.#one()];
    for (;;) {
      const next = this.#peek()?.toLowerCase();
      if (next === undefined || next === "or" || this.error !== "") break;
      if (next === "and") this.#at += 1;
      tests.push(this.#one());
    }
    return (facts) => tests.every((test) => test(facts));
  }

  #one(): Test {
    const word = this.#peek();
    this.#at += 1;
    if (word === undefined) return this.#fault("something is missing at the end");
    if (word === "!") {
      const test = this.#one();
      return (facts) => !test(facts);
    }
    if (OPERATORS.has(word)) return this.#fault(`what is before "${word}"?`);
    const operator = this.#peek();
    if (operator === undefined || !OPERATORS.has(operator)) {
      const part = bare(word).toLowerCase();
      return (facts) => Object.values(facts).some((value) => typeof value === "string" && value.toLowerCase().includes(part));
    }
    if (!this.fields.includes(word)) return this.#fault(`"${word}" is none of ${this.fields.join(", ")}`);
    const value = this.words[this.#at + 1];
    if (value === undefined || OPERATORS.has(value)) return this.#fault(`what is ${word} ${operator}?`);
    this.#at += 2;
    return compared(word, operator, bare(value));
  }

  #fault(what: string): Test {
    if (this.error === "") this.error = what;
    return EVERYTHING;
  }
}

function bare(word: string): string {
  return word.startsWith('"') ? word.slice(1, -1) : word;
}

function compared(field: string, operator: string, wanted: string): Test {
  const limit = Number(wanted.replace(/(%|ms|\/s)$/, ""));
  return (facts) => {
    const found = facts[field];
    if (found === undefined) return false;
    if (operator === "~") return String(found).toLowerCase().includes(wanted.toLowerCase());
    if (operator === "=" || operator === "!=") {
      const same = typeof found === "number" ? found === limit : found.toLowerCase() === wanted.toLowerCase();
      return same === (operator === "=");
    }
    const value = Number(found);
    if (!Number.isFinite(value) || !Number.isFinite(limit)) return false;
    if (operator === "<") return value < limit;
    if (operator === "<=") return value <= limit;
    return operator === ">" ? value > limit : value >= limit;
  };
}
