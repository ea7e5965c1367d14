import { status } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { CallCounts } from '../feed/call-counts.js';
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
  const level = code === status.INTERNAL || code === status.UNKNOWN ? 'error' : 'info';
  log[level](fields, 'call ended');
}

/** Counts a call that has ended, for metrics. */
export function countEnd(counts: CallCounts, { call, code, error }: EndedCall): void {
  counts.add(methodName(call.method), status[code], reasonOf(error) ?? '');
}

/** Returns the reason of the error that ended a call, if it is one of Feed's. */
export const reasonOf = (error: unknown): string | undefined =>
  (error as Partial<FeedStatus> | undefined)?.reason;
