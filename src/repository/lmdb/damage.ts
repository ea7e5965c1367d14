import { setImmediate as nextTurn } from 'node:timers/promises';

/** A log is not what was written. The message is part of a sentence; damaged() has the whole. */
export class DamageError extends Error {}

/** Where a log says what it does that takes long. */
export interface Notices {
  info(message: string): void;
  error(message: string): void;
}

/** Others run, and a signal is heard, after each such time (milliseconds). */
const SLICE = 20;
/** A check that takes longer than this (milliseconds) says how far it is, and again after each such time. */
const NOTICE_INTERVAL = 5_000;

/** Puts a cause and what to do around what was found. */
export function damaged(path: string, { message }: Error): Error {
  return new Error(
    `the log ${path} is damaged (${message}): restore it from a copy that was made while it was closed, or ` +
      'from a snapshot of its volume, or move it away to start anew',
  );
}

/** Runs a check to its end, some of it in each turn of the event loop; it yields which share of it is done. */
export async function runCheck(
  what: string,
  check: Iterable<number>,
  notices: Notices,
): Promise<void> {
  const start = performance.now();
  let turn = start;
  let said = start;
  for (const done of check) {
    const now = performance.now();
    if (now - said >= NOTICE_INTERVAL) {
      said = now;
      notices.info(`${what}: ${Math.floor(100 * done)}%`);
    }
    if (now - turn < SLICE) continue;
    await nextTurn();
    turn = performance.now();
  }
  if (said > start) notices.info(`${what}: done in ${Math.round(performance.now() - start)} ms`);
}
