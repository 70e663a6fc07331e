/**
 * The last so many of something, in the order they came.
 *
 * Invariant: never more than `capacity`; adding one and reading the newest take the same time however many there are.
 */
export class Ring<T> {
  readonly #kept: (T | undefined)[];
  #next = 0;
  #size = 0;
  #dropped = 0;

  constructor(readonly capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError(`a ring of ${capacity}`);
    this.#kept = new Array<T | undefined>(capacity);
  }

  push(one: T): void {
    this.#kept[this.#next] = one;
    this.#next = (this.#next + 1) % this.capacity;
    if (this.#size < this.capacity) this.#size += 1;
    else this.#dropped += 1;
  }

  get size(): number {
    return this.#size;
  }

  /** How many had to go since it was made or cleared. */
  get dropped(): number {
    return this.#dropped;
  }

  /** The one at a place, the oldest first. */
  at(index: number): T | undefined {
    if (index < 0 || index >= this.#size) return undefined;
    return this.#kept[(this.#next - this.#size + index + this.capacity) % this.capacity];
  }

  newest(): T | undefined {
    return this.at(this.#size - 1);
  }

  /** The newest `most`, oldest first. */
  last(most: number): T[] {
    const taken: T[] = [];
    for (let index = Math.max(0, this.#size - most); index < this.#size; index += 1) taken.push(this.at(index) as T);
    return taken;
  }

  clear(): void {
    this.#kept.fill(undefined);
    this.#next = 0;
    this.#size = 0;
    this.#dropped = 0;
  }
}
