import { Metadata, type StatusObject, status } from '@grpc/grpc-js';

const CODES = Object.values(status).filter(
  (code): code is status => typeof code === 'number' && code !== status.OK,
);

/**
 * The status of whatever ended a call, safe to send: grpc-js crashes on a lone surrogate in the details
 * (encodeURI) and hangs the client on metadata that is not a Metadata.
 */
export function statusOf(error: unknown): StatusObject {
  const { code, details, message, metadata } = (
    typeof error === 'object' && error !== null ? error : {}
  ) as {
    code?: unknown;
    details?: unknown;
    message?: unknown;
    metadata?: unknown;
  };
  const known = CODES.find((candidate) => candidate === code);
  const text = typeof details === 'string' ? details : typeof message === 'string' ? message : '';
  return {
    code: known ?? status.INTERNAL,
    // What is no status was not meant for the client: it may say more than the client should know.
    details: known ? text.toWellFormed() : 'Internal server error',
    metadata: metadata instanceof Metadata ? metadata : new Metadata(),
  };
}
