/**
 * What pods used a while ago, as far as this page has heard of it: readings some seconds apart, and for each pod the values that changed.
 *
 * Invariants: pure; the last `READINGS_KEPT` readings and `PODS_MAX` pods are kept at most, and no sample that is as the one before; a pod that is gone
 * goes with the last reading that had it.
 */

import { Ring } from "./ring";

/** A quarter of an hour, by the five seconds between two readings. */
export const READINGS_KEPT = 180;
export const PODS_MAX = 1000;

export interface Usage {
  readonly milliCores: number;
  readonly bytes: number;
  readonly calls: number;
  /** Instances of its component that there are. */
  readonly instances: number;
  /** Instances started a second. */
  readonly starts: number;
}

export const NO_USAGE: Usage = { milliCores: 0, bytes: 0, calls: 0, instances: 0, starts: 0 };

interface Sample {
  /** Which reading. */
  readonly number: number;
  readonly used: Usage | undefined;
}

/** One moment of some pods together. */
export interface Moment extends Usage {
  readonly at: number;
  /** How many of the pods there were. */
  readonly pods: number;
}

export function together(all: readonly Usage[]): Usage {
  const sum = (of: (one: Usage) => number) => all.reduce((sum, one) => sum + of(one), 0);
  return { milliCores: sum((one) => one.milliCores), bytes: sum((one) => one.bytes), calls: sum((one) => one.calls), instances: sum((one) => one.instances), starts: sum((one) => one.starts) };
}

function same(one: Usage | undefined, other: Usage | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.milliCores === other.milliCores && one.bytes === other.bytes && one.calls === other.calls && one.instances === other.instances && one.starts === other.starts;
}

export class Pasts {
  readonly #times = new Ring<number>(READINGS_KEPT);
  readonly #pods = new Map<string, Ring<Sample>>();
  #number = 0;

  /** Takes up a reading of all pods. */
  push(at: number, now: ReadonlyMap<string, Usage>): void {
    this.#number += 1;
    this.#times.push(at);
    const oldest = this.#number - this.#times.size + 1;
    for (const [name, samples] of this.#pods) {
      const last = samples.newest();
      if (now.has(name) || last === undefined) continue;
      if (last.used !== undefined) samples.push({ number: this.#number, used: undefined });
      else if (last.number < oldest) this.#pods.delete(name);
    }
    for (const [name, used] of now) {
      let samples = this.#pods.get(name);
      if (samples === undefined) {
        if (this.#pods.size >= PODS_MAX) continue;
        samples = new Ring(READINGS_KEPT);
        this.#pods.set(name, samples);
      }
      if (samples.size === 0 || !same(samples.newest()?.used, used)) samples.push({ number: this.#number, used });
    }
  }

  clear(): void {
    this.#times.clear();
    this.#pods.clear();
  }

  /** What these used together, oldest first; of times before any of them was there nothing is told. */
  of(names: readonly string[]): Moment[] {
    const own = names.flatMap((name) => this.#pods.get(name) ?? []);
    const next = own.map(() => 0);
    const first = this.#number - this.#times.size + 1;
    const moments: Moment[] = [];
    for (let index = 0; index < this.#times.size; index += 1) {
      const here: Usage[] = [];
      own.forEach((samples, which) => {
        while ((samples.at(next[which] ?? 0)?.number ?? Number.POSITIVE_INFINITY) <= first + index) next[which] = (next[which] ?? 0) + 1;
        const used = samples.at((next[which] ?? 0) - 1)?.used;
        if (used !== undefined) here.push(used);
      });
      if (here.length > 0 || moments.length > 0) moments.push({ at: this.#times.at(index) ?? 0, pods: here.length, ...together(here) });
    }
    return moments;
  }
}
