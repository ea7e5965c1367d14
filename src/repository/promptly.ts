/** Metrics and lists for operators wait this long (milliseconds) for an answer of a disk or of NATS. */
export const PATIENCE = 1_000;

/** Resolves with an answer, or with undefined if that fails or takes longer than a second. */
export async function promptly<T>(answer: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(late.resolve, PATIENCE, undefined);
  try {
    return await Promise.race([answer.catch(() => undefined), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Returns a function that asks for an answer, as promptly() waits for it. While one is due, further calls wait for the same one: a disk
 * that hangs is asked once.
 */
export function askOnceAtATime<T>(ask: () => Promise<T>): () => Promise<T | undefined> {
  let asking: Promise<T> | undefined;
  return () => {
    asking ??= ask().finally(() => (asking = undefined));
    return promptly(asking);
  };
}
