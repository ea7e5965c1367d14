import { type Signal, useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { Unreachable } from '../api/http.ts';
import { pause, signedIn } from '../api/pause.ts';
import { Problem } from '../api/problem.ts';

/** How long (milliseconds) a server that did not answer is left alone. */
const RETRY = 2000;
/** The same of one that refused, which will most probably refuse again. */
const REFUSED = 15_000;

export interface Polled<T> {
  /** The last answer; it stays while the server is away. */
  readonly answer: Signal<T | undefined>;
  /** Why the server refused the last request. */
  readonly problem: Signal<Problem | undefined>;
  /** Asks again at once. */
  readonly again: () => void;
}

/**
 * Asks the server again and again while the component is shown, and not while the page is hidden.
 *
 * @param every the pause between an answer and the next request, in milliseconds
 * @param key a change of it asks at once; the answer stays until the next one
 */
export function usePolled<T>(
  ask: (signal: AbortSignal) => Promise<T>,
  every: number,
  key = '',
): Polled<T> {
  const answer = useSignal<T | undefined>(undefined);
  const problem = useSignal<Problem | undefined>(undefined);
  const round = useSignal(0);
  useEffect(() => {
    const end = new AbortController();
    poll(ask, every, { answer, problem }, end.signal).catch((error: unknown) => {
      if (!end.signal.aborted) throw error;
    });
    return () => end.abort();
  }, [key, round.value]);
  return { answer, problem, again: () => round.value++ };
}

async function poll<T>(
  ask: (signal: AbortSignal) => Promise<T>,
  every: number,
  { answer, problem }: Omit<Polled<T>, 'again'>,
  signal: AbortSignal,
): Promise<never> {
  for (;;) {
    await signedIn(signal);
    let wait = every;
    try {
      const next = await ask(signal);
      signal.throwIfAborted();
      answer.value = next;
      problem.value = undefined;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Unreachable) wait = RETRY;
      else if (!(error instanceof Problem)) throw error;
      // A token was missing: `signedIn` waits for it, if it still is. Or the certificate has ended: another connection is tried.
      else if (error.status === 401) wait = 0;
      else {
        problem.value = error;
        wait = REFUSED;
      }
    }
    await pause(wait, signal);
    await shown(signal);
  }
}

/** Waits until the page is not hidden. Rejects with the signal's reason if that is aborted first. */
function shown(signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!document.hidden) return resolve();
    const end = new AbortController();
    const either = { signal: end.signal };
    const settle = (by: () => void) => () => {
      end.abort();
      by();
    };
    document.addEventListener('visibilitychange', settle(resolve), either);
    signal.addEventListener(
      'abort',
      settle(() => reject(signal.reason)),
      either,
    );
  });
}
