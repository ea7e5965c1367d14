import { Metadata, type StatusObject, status } from '@grpc/grpc-js';

const CODES = Object.values(status).filter(
  (code): code is status => typeof code === 'number' && code !== status.OK,
);

/**
 * Returns the status for whatever was thrown, INTERNAL if that is not a status. It is safe to send: on a lone surrogate in the
 * details grpc-js crashes (encodeURI), and on metadata that is not a Metadata it leaves the client waiting.
 */
export function statusOf(error: unknown): StatusObject {
  const { code, details, message, metadata } = Object(error) as Record<string, unknown>;
  const known = CODES.find((candidate) => candidate === code);
  const text = typeof details === 'string' ? details : typeof message === 'string' ? message : '';
  return {
    code: known ?? status.INTERNAL,
    // Other errors were not made for clients: their text may tell what clients should not know.
    details: known ? text.toWellFormed() : 'Internal server error',
    metadata: metadata instanceof Metadata ? metadata : new Metadata(),
  };
}
