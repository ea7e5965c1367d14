import { connect, type IncomingHttpHeaders } from 'node:http2';
import { duplexPair } from 'node:stream';
import { Metadata, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import {
  createServer,
  hasEnded,
  http2StreamOf,
  takeReading,
  UnknownGrpcJsError,
} from './grpc-js.js';

/** How long (milliseconds) the call may take. Only a busy machine comes near it. */
const TIMEOUT = 10_000;
const PATH = '/check/Echo';
const STREAM_WINDOW = 128 * 1024;
const HEADER_BYTES = 32 * 1024;
/** One frame, with a message of one byte. */
const MESSAGE = Buffer.from([0, 0, 0, 0, 1, 1]);
/** Without prepareStream(), which removes malformed headers, grpc-js would refuse the call for its grpc-timeout. */
const HEADERS = {
  ':method': 'POST',
  ':path': PATH,
  'content-type': 'application/grpc',
  te: 'trailers',
  'grpc-timeout': 'never',
};

/**
 * Tries all that grpc-js.ts relies on, by one call over a connection in memory. A second one, of another kind of method, made chats 8%
 * slower from then on: V8 prepares grpc-js's code for what it has met.
 *
 * @throws UnknownGrpcJsError
 */
export async function checkGrpcJs(): Promise<void> {
  try {
    await echoOneMessage();
  } catch (cause) {
    if (cause instanceof UnknownGrpcJsError) throw cause;
    throw new UnknownGrpcJsError(`how it serves a call (${(cause as Error).message})`, { cause });
  }
}

/** The call's handler reads the HTTP/2 stream in place of grpc-js, and writes to it between grpc-js's headers and trailers. */
async function echoOneMessage(): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const expectSame = (what: string, found: unknown, expected: unknown): void => {
    if (found !== expected) reject(new UnknownGrpcJsError(`${what} (${String(found)})`));
  };
  const echo = (call: ServerDuplexStream<Buffer, Buffer>): void => {
    try {
      const stream = http2StreamOf(call);
      expectSame('whether a call has ended', hasEnded(call), false);
      for (const event of ['data', 'end'])
        expectSame(`its listeners for "${event}"`, stream.listenerCount(event), 1);
      takeReading(stream);
      call.on('data', () => reject(new UnknownGrpcJsError('what it reads a call with')));
      call.sendMetadata(new Metadata());
      stream.on('data', (chunk: Buffer) => stream.write(chunk)).on('end', () => call.end());
    } catch (error) {
      reject(error);
    }
  };
  const server = createServer(
    { 'grpc.enable_channelz': 0 },
    { streamWindow: STREAM_WINDOW, resetBurst: 1_000, headerBytes: HEADER_BYTES },
    { onSession: () => {} },
  );
  server.register(PATH, echo, asIs, asIs, 'bidi');
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const [here, there] = duplexPair();
  injector.injectConnection(there);

  const client = connect('http://localhost', { createConnection: () => here }).on('error', reject);
  const call = client.request(HEADERS).on('error', reject);
  const echoed: Buffer[] = [];
  // The request ends only after the response has begun: node adds a listener for "end" to a request that has ended, and
  // the handler expects grpc-js's listeners alone.
  call.on('response', () => call.end(MESSAGE));
  call.on('data', (chunk: Buffer) => echoed.push(chunk));
  call.on('trailers', (trailers: IncomingHttpHeaders) => {
    expectSame('the status of a call', trailers['grpc-status'], '0');
    expectSame('the bytes of a call', Buffer.concat(echoed).equals(MESSAGE), true);
    const { initialWindowSize, maxHeaderListSize } = client.remoteSettings;
    expectSame('the window of a stream', initialWindowSize, STREAM_WINDOW);
    expectSame('the limit of headers', maxHeaderListSize, HEADER_BYTES);
    resolve();
  });
  const timer = setTimeout(() => reject(new UnknownGrpcJsError('the end of a call')), TIMEOUT);
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    client.destroy();
    there.destroy();
    injector.destroy();
  }
}

const asIs = (bytes: Buffer): Buffer => bytes;
