/** A server has this many milliseconds for each answer, unless a check says otherwise. */
const PATIENCE = 5_000;

/** No answer came in time. */
export class TooLate extends Error {
  override readonly name = 'TooLate';
  constructor(readonly seconds: number) {
    super(`no answer within ${seconds} s`);
  }
}

/**
 * Settles as `work` does.
 *
 * @throws TooLate after `milliseconds`; the signal's reason as soon as it fires
 */
export async function within<T>(
  work: Promise<T>,
  signal: AbortSignal,
  milliseconds = PATIENCE,
): Promise<T> {
  const over = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let lastLook: NodeJS.Immediate | undefined;
  const given = new Promise<never>((_, reject) => {
    const stop = (): void => reject(signal.reason as Error);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { signal: over.signal });
    const giveUp = (): void => reject(new TooLate(milliseconds / 1_000));
    // If this process stood still, an answer may be there that node has not read. An immediate runs after node has.
    timer = setTimeout(() => (lastLook = setImmediate(giveUp)), milliseconds);
  });
  try {
    return await Promise.race([work, given]);
  } finally {
    clearTimeout(timer);
    clearImmediate(lastLook);
    over.abort();
  }
}

/** Returns the code of an error, such as ECONNREFUSED, or its message if it has none. */
export function codeOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code ?? message;
}

/** Returns the milliseconds since `start` (performance.now()), with two decimals. */
export function millisecondsSince(start: number): number {
  return Math.round((performance.now() - start) * 100) / 100;
}
