import { setTimeout as sleep } from 'node:timers/promises';

/**
 * The longest time (milliseconds) that a test waits for a state. It is generous for the sake of busy machines; only a test
 * that fails waits for all of it. It is less than the 40 s after which keepalive ends a connection: what should be released
 * sooner is not released by that.
 */
const SETTLE_TIMEOUT = 30_000;
const INTERVAL = 5;

/**
 * Waits until `holds` returns true. Throws after `timeout` milliseconds.
 *
 * @param what names the state that is waited for, in the error; a function can add what was seen last
 */
export async function until(
  holds: () => boolean | Promise<boolean>,
  what: string | (() => string),
  timeout = SETTLE_TIMEOUT,
  interval = INTERVAL,
): Promise<void> {
  const end = performance.now() + timeout;
  for (;;) {
    // The time is read before `holds` is called, because this process may wait for a processor between the two.
    const isLast = performance.now() >= end;
    if (await holds()) return;
    if (isLast) throw late(what, timeout);
    await sleep(interval);
  }
}

/**
 * Repeats an assertion until it passes, and returns what it returned. If it still fails after `timeout` milliseconds,
 * its last error is thrown, which shows what was seen last.
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

/** Lets this process, and what of a test runs in it, stand still for so many milliseconds. It leaves the processor to others. */
export function standStill(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/**
 * Waits until a number was the same three times in a row, 200 ms apart, and returns it. A test then compares it with the
 * bound that it must keep. One pause would prove little: on a busy machine, a number without a bound grows slowly, too.
 */
export async function standstill(look: () => number): Promise<number> {
  let last = look();
  for (let timesSame = 0; timesSame < 3;) {
    await sleep(200);
    const next = look();
    timesSame = next === last ? timesSame + 1 : 0;
    last = next;
  }
  return last;
}

/**
 * Measures up to three times, until it finds what is wanted. It is for what depends on the time of two processes, neither of
 * which may stand still: say so where it is used.
 */
export async function upToThrice<T>(
  measure: () => Promise<T>,
  isWanted: (found: T) => boolean,
): Promise<T> {
  for (let left = 2; left > 0; left--) {
    const found = await measure();
    if (isWanted(found)) return found;
    console.log('measured again');
  }
  return measure();
}

/** Waits for a promise. Throws if it has not settled after `timeout` milliseconds. */
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
