/** The rate is measured over the last this many milliseconds. */
const RATE_OVER = 5_000;

/** How fast a number grows. */
export class RecentRate {
  private samples: { readonly at: number; readonly total: number }[] = [];

  /** Notes what the number is now. */
  note(total: number): void {
    const at = performance.now();
    this.samples.push({ at, total });
    while (this.samples.length > 2 && this.samples[0].at < at - RATE_OVER) this.samples.shift();
  }

  /** Returns by how much the number grows in a second; undefined if that is not known yet. */
  get perSecond(): number | undefined {
    const first = this.samples.at(0);
    const last = this.samples.at(-1);
    if (!first || !last || last.at === first.at) return undefined;
    return ((last.total - first.total) / (last.at - first.at)) * 1_000;
  }
}
