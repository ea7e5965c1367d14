import { status } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import type { FeedStatus } from './feed-status.js';
import type { EndedCall } from './transport/index.js';

/** Logs one line for a call that has ended: how many events and bytes it had, never what they contain. */
export function logEnd(log: Logger, { call, code, details, error }: EndedCall): void {
  const fields = {
    context: 'gRPC',
    method: call.method,
    peer: call.peer,
    ...call.notes,
    status: status[code],
    reason: (error as Partial<FeedStatus> | undefined)?.reason,
    ...(details !== '' && { details }),
    events: call.events,
    bytes: call.bytes,
    ms: Math.round(performance.now() - call.startedAt),
  };
  const level = code === status.INTERNAL || code === status.UNKNOWN ? 'error' : 'info';
  log[level](fields, 'call ended');
}
