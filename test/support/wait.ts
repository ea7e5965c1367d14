import { setTimeout as sleep } from 'node:timers/promises';

/**
 * How long (milliseconds) a state that settles by itself may take to do so on a busy machine. Only a test that fails
 * waits for so long.
 */
const SETTLE_TIMEOUT = 20_000;
const INTERVAL = 5;

/**
 * Waits until something holds. Fails after `timeout` milliseconds.
 *
 * @param what the state that is waited for; as a function, it can also tell what was seen last
 */
export async function until(
  holds: () => boolean | Promise<boolean>,
  what: string | (() => string),
  timeout = SETTLE_TIMEOUT,
  interval = INTERVAL,
): Promise<void> {
  const end = performance.now() + timeout;
  for (;;) {
    // The time is read before the look: this process may wait for a processor in between.
    const isLast = performance.now() >= end;
    if (await holds()) return;
    if (isLast) throw late(what, timeout);
    await sleep(interval);
  }
}

/**
 * Repeats an assertion until it passes, and returns what it returned. Where it still fails after `timeout`
 * milliseconds, its own error is thrown, which shows what was seen last.
 */
export async function eventually<T>(
  assertion: () => T | Promise<T>,
  timeout = SETTLE_TIMEOUT,
  interval = INTERVAL,
): Promise<T> {
  let result: { readonly value: T } | undefined;
  let error: unknown;
  const passes = async (): Promise<boolean> => {
    try {
      result = { value: await assertion() };
    } catch (failure) {
      error = failure;
    }
    return result !== undefined;
  };
  await until(passes, '', timeout, interval).catch(() => {
    if (error instanceof Error) error.message = late(error.message, timeout).message;
    throw error;
  });
  return result!.value;
}

/**
 * Waits until a number stands still, and returns it: where there is a bound, it stands still below that. One pause would
 * see little on a busy machine, on which what has no bound comes slowly as well.
 */
export async function standstill(look: () => number): Promise<number> {
  let last = look();
  for (let stills = 0; stills < 3;) {
    await sleep(200);
    const next = look();
    stills = next === last ? stills + 1 : 0;
    last = next;
  }
  return last;
}

/** Waits for some work. Fails where it is not over after `timeout` milliseconds. */
export async function within<T>(
  work: Promise<T>,
  what: string | (() => string),
  timeout = SETTLE_TIMEOUT,
): Promise<T> {
  const tooLate = Promise.withResolvers<never>();
  const timer = setTimeout(() => tooLate.reject(late(what, timeout)), timeout);
  try {
    return await Promise.race([work, tooLate.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function late(what: string | (() => string), timeout: number): Error {
  return new Error(`not within ${timeout} ms: ${typeof what === 'string' ? what : what()}`);
}
