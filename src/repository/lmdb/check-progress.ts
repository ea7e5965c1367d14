import { setImmediate as nextTurn } from 'node:timers/promises';

/** Receives messages for the operator: progress of checks, and a lost file. */
export interface Notices {
  info(message: string): void;
  error(message: string): void;
}

/** The check yields to the event loop after this many ms. */
const SLICE = 20;
/** A check that takes longer than this many ms reports its progress, and again after each further interval. */
const NOTICE_INTERVAL = 5_000;

/** Runs a check to its end in slices of the event loop. The check yields the share of its work that is done. */
export async function runCheck(
  what: string,
  check: Iterable<number>,
  notices: Notices,
): Promise<void> {
  const start = performance.now();
  let sliceStart = start;
  let lastNotice = start;
  for (const done of check) {
    const now = performance.now();
    if (now - lastNotice >= NOTICE_INTERVAL) {
      lastNotice = now;
      notices.info(`${what}: ${Math.floor(100 * done)}%`);
    }
    if (now - sliceStart < SLICE) continue;
    await nextTurn();
    sliceStart = performance.now();
  }
  if (lastNotice > start)
    notices.info(`${what}: done in ${Math.round(performance.now() - start)} ms`);
}
