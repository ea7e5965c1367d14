import { Metadata, status } from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';
import type { FeedError, Reason } from '../feed/errors.js';
import { contract, PACKAGE } from './contract.js';

/** The gRPC status of each reason, as the contract's error table has it. */
const STATUS: Record<Reason, status> = {
  CURSOR_INVALID: status.INVALID_ARGUMENT,
  CURSOR_EXPIRED: status.OUT_OF_RANGE,
  CURSOR_AHEAD: status.OUT_OF_RANGE,
  EPOCH_CHANGED: status.FAILED_PRECONDITION,
  REQUEST_INVALID: status.INVALID_ARGUMENT,
  TOPIC_INVALID: status.INVALID_ARGUMENT,
  START_INVALID: status.INVALID_ARGUMENT,
  HEARTBEAT_INVALID: status.INVALID_ARGUMENT,
  EVENT_INVALID: status.INVALID_ARGUMENT,
  UPLOAD_TOO_LONG: status.RESOURCE_EXHAUSTED,
  INSERT_FAILED: status.INTERNAL,
  STORAGE_FULL: status.RESOURCE_EXHAUSTED,
  STORE_UNAVAILABLE: status.UNAVAILABLE,
  MESSAGE_INVALID: status.INVALID_ARGUMENT,
  TOO_SLOW: status.RESOURCE_EXHAUSTED,
  TOO_MANY_ROOMS: status.RESOURCE_EXHAUSTED,
  LIMIT_EXCEEDED: status.RESOURCE_EXHAUSTED,
  ROOM_INTERRUPTED: status.UNAVAILABLE,
  UNAUTHENTICATED: status.UNAUTHENTICATED,
  TOKEN_EXPIRED: status.UNAUTHENTICATED,
  CERTIFICATE_EXPIRED: status.UNAUTHENTICATED,
  KEYS_UNAVAILABLE: status.UNAVAILABLE,
  TOPIC_FORBIDDEN: status.PERMISSION_DENIED,
  STREAM_UNKNOWN: status.NOT_FOUND,
  ENDED_BY_OPERATOR: status.ABORTED,
  BACKUP_UNSUPPORTED: status.FAILED_PRECONDITION,
  DRAINING: status.UNAVAILABLE,
  MOVED: status.UNAVAILABLE,
};

type MessageType = MessageTypeDefinition<object, object>;
const Status = contract['google.rpc.Status'] as MessageType;
const ErrorInfo = contract['google.rpc.ErrorInfo'] as MessageType;

/** A status as grpc-js sends it, with google.rpc.ErrorInfo in its details. */
export interface FeedStatus {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;
  readonly reason: Reason;
}

export function feedStatus({ reason, message, metadata }: FeedError): FeedStatus {
  const code = STATUS[reason];
  const info = ErrorInfo.serialize({ reason, domain: PACKAGE, metadata });
  const trailers = new Metadata();
  trailers.set(
    'grpc-status-details-bin',
    Status.serialize({
      code,
      message: message.toWellFormed(),
      details: [{ type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value: info }],
    }),
  );
  return { code, details: message, metadata: trailers, reason };
}
