/** Upper bounds of latencies, in seconds: from 0.1 ms to 10 s, three a decade. */
export const LATENCY_BOUNDS: readonly number[] = [
  0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10,
];

/** Upper bounds of sizes, in bytes: from 1 KiB to 16 MiB. */
export const SIZE_BOUNDS: readonly number[] = Array.from({ length: 8 }, (_, i) => 1024 * 4 ** i);

/** Counts values by their size. It is plain numbers, so that observe() costs some nanoseconds and makes no object. */
export class Histogram {
  /** How many values there were, and what they add up to. */
  count = 0;
  sum = 0;
  /** How many values were up to each bound and above the bound before. Larger ones are in `count` alone. */
  readonly counts: number[];

  /** @param bounds rising */
  constructor(readonly bounds: readonly number[]) {
    this.counts = bounds.map(() => 0);
  }

  observe(value: number): void {
    this.count++;
    this.sum += value;
    const { bounds } = this;
    for (let i = 0; i < bounds.length; i++) {
      if (value > bounds[i]) continue;
      this.counts[i]++;
      return;
    }
  }
}
