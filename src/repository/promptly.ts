/** Metrics wait this long (milliseconds) for an answer of a disk or of NATS. */
const PATIENCE = 1_000;

/**
 * Returns a function that resolves with what `ask` finds out, or with undefined if that fails or takes longer than a second.
 * While an answer is due, further calls wait for the same one: a disk that hangs is asked once.
 */
export function promptly<T>(ask: () => Promise<T>): () => Promise<T | undefined> {
  let asking: Promise<T | undefined> | undefined;
  const answer = async (): Promise<T | undefined> => {
    try {
      return await ask();
    } catch {
      return undefined;
    } finally {
      asking = undefined;
    }
  };
  return async () => {
    asking ??= answer();
    const late = Promise.withResolvers<undefined>();
    const timer = setTimeout(late.resolve, PATIENCE, undefined);
    try {
      return await Promise.race([asking, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  };
}
