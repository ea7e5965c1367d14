import { isSignedOut } from './state.ts';

/** Waits for so many milliseconds. Rejects with the signal's reason if that is aborted first. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', aborted);
      resolve();
    }, milliseconds);
    signal.addEventListener('abort', aborted, { once: true });
  });
}

/** Waits until no token is missing. Rejects with the signal's reason if that is aborted first. */
export function signedIn(signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    if (!isSignedOut.value) return resolve();
    const aborted = (): void => {
      stop();
      reject(signal.reason);
    };
    // It is called at once as well, but then a token is still missing.
    const stop = isSignedOut.subscribe((isMissing) => {
      if (isMissing) return;
      stop();
      signal.removeEventListener('abort', aborted);
      resolve();
    });
    signal.addEventListener('abort', aborted, { once: true });
  });
}
