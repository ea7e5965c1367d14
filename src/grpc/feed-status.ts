import { Metadata, status } from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';
import type { FeedError, Reason } from '../feed/errors.js';
import { STATUS_NAMES } from '../feed/status-names.js';
import { contract, PACKAGE } from './contract.js';

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
  const code = status[STATUS_NAMES[reason]];
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
