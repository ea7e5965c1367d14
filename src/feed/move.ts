import { moved } from './errors.js';
import type { LiveCall, LiveCalls } from './live-calls.js';

/**
 * Ends the calls of a connection so that their clients go on elsewhere: watches and chats one after another within `grace`
 * milliseconds; uploads by themselves, or else at the end of that time.
 */
export async function moveCalls(
  calls: LiveCalls,
  moving: readonly LiveCall[],
  grace: number,
): Promise<void> {
  const reason = moved();
  const uploads = moving.filter(({ endless }) => !endless);
  const others = moving.filter(({ endless }) => endless);
  await Promise.all([
    calls.endWithin(uploads, grace, reason),
    calls.endSpread(others, grace, reason),
  ]);
}
