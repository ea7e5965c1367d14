import type { IncomingHttpHeaders } from 'node:http2';
import { Metadata } from '@grpc/grpc-js';
import { frame } from '../../src/wire/frames.js';
import { errorInfo } from './client.js';
import type { RawClient } from './raw-client.js';
import { within } from './wait.js';

/** How a call went: `open` if its response has begun and goes on. */
export interface RawOutcome {
  readonly code: number | 'open';
  readonly reason?: string;
  readonly details?: string;
  readonly metadata?: Record<string, string>;
}

/** Makes a call with one message. Resolves when it has ended, or with `open` once a watch has begun, which is then cancelled. */
export async function outcomeOf(
  raw: RawClient,
  path: string,
  headers: Record<string, string | string[]>,
  message: Uint8Array,
): Promise<RawOutcome> {
  const stream = raw.session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  stream.on('error', () => {});
  const ended = new Promise<RawOutcome>((resolve) => {
    stream.on('response', (own) => {
      if ('grpc-status' in own) resolve(outcome(own));
      else if (path.endsWith('/Watch')) resolve({ code: 'open' });
    });
    stream.on('trailers', (own) => resolve(outcome(own)));
    stream.on('close', () => resolve({ code: 'open', details: `reset: ${stream.rstCode}` }));
  });
  stream.resume();
  stream.end(frame(message));
  try {
    return await within(ended, `the end of ${path}`);
  } finally {
    stream.close();
  }
}

export function outcome(headers: IncomingHttpHeaders): RawOutcome {
  const metadata = new Metadata();
  const trailer = headers['grpc-status-details-bin'];
  if (trailer !== undefined)
    metadata.set('grpc-status-details-bin', Buffer.from(String(trailer), 'base64'));
  const info = errorInfo(metadata);
  return {
    code: Number(headers['grpc-status']),
    details: decodeURIComponent(String(headers['grpc-message'] ?? '')),
    ...(info ? { reason: info.reason, metadata: info.metadata } : {}),
  };
}
