import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { until, upToThrice } from '../../test/support/wait.js';
import { Backlog } from '../src/backlog.js';

test('an acknowledgement of many small batches takes less time than their events took', async () => {
  const count = 100_000;
  async function* source(): AsyncGenerator<string> {
    for (let i = 0; i < count; i++) {
      await nextTurn(); // So each event is a batch of its own.
      yield 'x';
    }
  }
  const measure = async () => {
    const start = performance.now();
    const backlog = new Backlog(source(), 't', 2 ** 30);
    backlog.start();
    let batches = 0;
    await until(() => {
      while (backlog.next()) batches++;
      return batches === count;
    }, 'all batches');
    const taken = performance.now();
    backlog.acknowledge(count);
    const acknowledged = performance.now();
    expect(backlog.unacknowledged).toBe(0);
    return { taking: taken - start, acknowledging: acknowledged - taken };
  };
  // Both are measured in this process, which may stand still in one of them.
  const isCheap = (times: Awaited<ReturnType<typeof measure>>): boolean =>
    times.acknowledging < times.taking;
  const { taking, acknowledging } = await upToThrice(measure, isCheap);
  expect(acknowledging).toBeLessThan(taking);
});
