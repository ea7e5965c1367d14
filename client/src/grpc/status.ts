import { constants, type IncomingHttpHeaders } from 'node:http2';
import { feedError, type FeedError, type Status, STATUSES } from '../errors.js';
import { ErrorInfo } from '../gen/google/rpc/error_details.js';
import { Status as RpcStatus } from '../gen/google/rpc/status.js';

/** Returns the error that a call's trailers say, or undefined for OK. */
export function errorOfTrailers(trailers: IncomingHttpHeaders): FeedError | undefined {
  const status = STATUSES[Number(trailers['grpc-status'])] ?? 'UNKNOWN';
  if (status === 'OK') return undefined;
  const info = errorInfo(trailers['grpc-status-details-bin']);
  const message = decoded(trailers['grpc-message']) || status;
  return feedError(status, message, info ? { reason: info.reason, metadata: info.metadata } : {});
}

/** Decodes `grpc-message`, which is percent-encoded UTF-8. A text that some server did not encode is returned as it is. */
function decoded(message: string | string[] | undefined): string {
  const text = String(message ?? '');
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function errorInfo(trailer: string | string[] | undefined): ErrorInfo | undefined {
  if (trailer === undefined) return undefined;
  try {
    const { details } = RpcStatus.decode(Buffer.from(String(trailer), 'base64'));
    const info = details.find(({ typeUrl }) => typeUrl.endsWith('/google.rpc.ErrorInfo'));
    return info && ErrorInfo.decode(info.value);
  } catch {
    return undefined; // The details are of a server that is not Feed.
  }
}

/** gRPC's table of HTTP statuses, for an answer that did not come from a gRPC server (doc/http-grpc-status-mapping.md). */
const BY_HTTP_STATUS: Readonly<Record<number, Status>> = {
  400: 'INTERNAL',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'UNIMPLEMENTED',
  429: 'UNAVAILABLE',
  502: 'UNAVAILABLE',
  503: 'UNAVAILABLE',
  504: 'UNAVAILABLE',
};

/** Returns the error of an answer that is not gRPC's. `address` is the server's, for the message. */
export function errorOfHttpStatus(httpStatus: number, address: string): FeedError {
  const status = BY_HTTP_STATUS[httpStatus] ?? 'UNKNOWN';
  return feedError(status, `${address} answered with HTTP ${httpStatus}, not as a gRPC server`, {});
}

/** gRPC's table of HTTP/2 error codes (doc/PROTOCOL-HTTP2.md), for a stream that was reset before it had a status. */
const BY_RESET: Readonly<Record<number, Status>> = {
  [constants.NGHTTP2_REFUSED_STREAM]: 'UNAVAILABLE',
  [constants.NGHTTP2_CANCEL]: 'CANCELLED',
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: 'RESOURCE_EXHAUSTED',
  [constants.NGHTTP2_INADEQUATE_SECURITY]: 'PERMISSION_DENIED',
};

/** Returns the error of a stream that ended without a status. `code` is that of HTTP/2's RST_STREAM, 0 if none came. */
export function errorOfReset(code: number, address: string): FeedError {
  const how = code === 0 ? 'without a status' : `by a reset with HTTP/2 error ${code}`;
  return feedError(BY_RESET[code] ?? 'INTERNAL', `${address} ended the call ${how}`, {});
}
