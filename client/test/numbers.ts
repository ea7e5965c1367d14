import { setTimeout as sleep } from 'node:timers/promises';

/** Yields numbered bodies, some at a time, until it is told to stop. */
export class Numbers {
  count = 0;
  isDone = false;

  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    while (!this.isDone) {
      for (let i = 0; i < 10; i++) yield String(this.count++);
      await sleep(20);
    }
  }
}
