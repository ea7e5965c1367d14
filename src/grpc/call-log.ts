import { status } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { CallCounts } from '../feed/call-counts.js';
import type { Reason } from '../feed/errors.js';
import { loggedNotes, methodName } from '../feed/live-calls.js';
import type { FeedStatus } from './feed-status.js';
import type { EndedCall } from './transport/index.js';

/** Logs one line for a call that has ended: how many events and bytes it had, never what they contain. */
export function logEnd(log: Logger, { call, code, details, error }: EndedCall): void {
  const fields = {
    context: 'gRPC',
    method: call.method,
    peer: call.peer,
    ...loggedNotes(call.notes),
    status: status[code],
    reason: reasonOf(error),
    ...(details !== '' && { details }),
    events: call.events,
    bytes: call.bytes,
    ms: Math.round(performance.now() - call.startedAt),
  };
  log[isFault(code, fields.reason) ? 'error' : 'info'](fields, 'call ended');
}

/** True for a status that says that this side failed. A client causes COMPRESSION_INVALID, although gRPC's status for it is INTERNAL. */
function isFault(code: status, reason: Reason | undefined): boolean {
  if (reason === 'COMPRESSION_INVALID') return false;
  return code === status.INTERNAL || code === status.UNKNOWN;
}

/** Counts a call that has ended, for metrics. */
export function countEnd(counts: CallCounts, { call, code, error }: EndedCall): void {
  counts.add(methodName(call.method), status[code], reasonOf(error) ?? '');
}

/** Returns the reason of the error that ended a call, if it is one of Feed's. */
export const reasonOf = (error: unknown): Reason | undefined =>
  (error as Partial<FeedStatus> | undefined)?.reason;
