import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';
import { Backoff, pause } from '../backoff.js';
import { Event } from '../gen/feed/v1/feed.js';
import { formatDuration } from './progress.js';
import { printable } from './terminal.js';

/** The waits between attempts, in milliseconds, after the second, which follows the first at once. */
const RETRY = { initial: 500, max: 30_000 };

/** The environment has no longer values than this, and none with a NUL: the command finds those in its input. */
const MAX_VARIABLE_CHARS = 16_384;

/**
 * Runs a shell command for an event, again and again until it succeeds. The command gets the event as a line of JSON on its
 * standard input, and FEED_TOPIC, FEED_ID, FEED_CURSOR and FEED_AT in its environment.
 *
 * @param say is called with each failure, for people
 * @returns false if the signal fired before the command succeeded
 */
export async function runUntilItSucceeds(
  command: string,
  event: Event,
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<boolean> {
  const backoff = new Backoff(RETRY);
  for (;;) {
    const failure = await run(command, event);
    if (failure === undefined) return true;
    const what = `the command ${failure} for the event ${printable(event.id)}`;
    if (signal.aborted) {
      say(what);
      return false;
    }
    const wait = backoff.next();
    say(`${what}; trying again ${wait === 0 ? 'now' : `in ${formatDuration(wait)}`}`);
    await pause(wait, signal);
    if (signal.aborted) return false;
  }
}

/** Runs the command once. Resolves with how it failed, or undefined. */
function run(command: string, event: Event): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(command, {
      shell: true,
      stdio: ['pipe', 'inherit', 'inherit'],
      env: { ...process.env, ...variablesOf(event) },
    });
    child.on('error', (error) => resolve(`could not be started (${error.message})`));
    child.on('exit', (code, signal) => {
      if (code === 0) resolve(undefined);
      else resolve(signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`);
    });
    // Without descriptors for pipes (EMFILE), there is no stdin, and `error` follows.
    const stdin = child.stdin as Writable | undefined;
    stdin?.on('error', () => {}); // It need not read its input.
    stdin?.end(`${JSON.stringify(Event.toJSON(event))}\n`);
  });
}

function variablesOf(event: Event): Record<string, string> {
  const all = {
    FEED_TOPIC: event.topic,
    FEED_ID: event.id,
    FEED_CURSOR: event.cursor,
    FEED_AT: event.at?.toISOString() ?? '',
  };
  const fitting = Object.entries(all).filter(
    ([, value]) => value.length <= MAX_VARIABLE_CHARS && !value.includes('\0'),
  );
  return Object.fromEntries(fitting);
}
