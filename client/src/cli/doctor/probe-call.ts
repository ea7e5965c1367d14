import type { ClientHttp2Session, IncomingHttpHeaders } from 'node:http2';
import { FeedError } from '../../errors.js';
import { Call } from '../../grpc/call.js';
import { headersOf } from '../../open-call.js';
import type { Examined, ProbeCall } from './examined.js';

/** Starts a call, such as `/feed.v1.FeedService/Watch`, on the examined connection. @throws FeedError if that was closed */
export async function startCall(examined: Examined, path: string): Promise<ProbeCall> {
  const session: ClientHttp2Session = examined.session!;
  if (session.closed || session.destroyed)
    throw new FeedError('UNAVAILABLE', `the connection to ${examined.address} was closed`);
  const stream = session.request(
    {
      ...(await headersOf(examined.metadata)),
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    },
    { endStream: false },
  );
  let headers: IncomingHttpHeaders | undefined;
  stream.on('response', (own) => (headers = own));
  const { address } = examined;
  // All checks use one connection, so a call that fails does not retire it. No check asks when it was opened.
  const connection = { address, openedAt: 0, failure: undefined, retire: () => {} };
  const call = new Call(stream, connection, () => {});
  return { call, responseHeaders: () => headers };
}
