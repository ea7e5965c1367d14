import { moved } from './errors.js';
import type { LiveCall, LiveCalls } from './live-calls.js';

/**
 * Ends the calls of a connection so that their clients go on elsewhere: watches and chats one after another within `grace`
 * milliseconds; uploads and short calls by themselves, or else at the end of that time.
 */
export async function moveCalls(
  calls: LiveCalls,
  moving: readonly LiveCall[],
  grace: number,
): Promise<void> {
  const reason = moved();
  const finite = moving.filter(({ endless }) => !endless);
  const lasting = moving.filter(({ endless }) => endless);
  await Promise.all([
    calls.endWithin(finite, grace, reason),
    calls.endSpread(lasting, grace, reason),
  ]);
}
