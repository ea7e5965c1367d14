import { setTimeout as sleep } from 'node:timers/promises';

/** Waits until something holds, or fails with what it was after `timeout` milliseconds. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  what: string,
  timeout = 10_000,
): Promise<void> {
  const end = performance.now() + timeout;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${timeout} ms: ${what}`);
    await sleep(5);
  }
}
