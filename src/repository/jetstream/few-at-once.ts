/** Does only so many pieces of work at a time. The others wait for their turn, in the order in which they came. */
export class FewAtOnce {
  private readonly waiting: (() => void)[] = [];
  private busy = 0;

  constructor(private readonly most: number) {}

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.busy === this.most) await new Promise<void>((resolve) => this.waiting.push(resolve));
    else this.busy++;
    try {
      return await work();
    } finally {
      // Whoever waits takes over this turn.
      const next = this.waiting.shift();
      if (next) next();
      else this.busy--;
    }
  }
}
