import {
  connect,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { createRequire } from 'node:module';
import { duplexPair } from 'node:stream';
import {
  logVerbosity,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerOptions,
  setLogVerbosity,
} from '@grpc/grpc-js';

// All that this transport relies on inside grpc-js is in this file, and checkGrpcJs() tries it at each start.

export interface ConnectionLimit {
  /** How many may be open; one more is closed at once. */
  readonly max: number;
  /** Called for each that is closed at once. */
  readonly onRefused: () => void;
}

/** grpc-js clamps with `| 0` (its server-interceptors.js), so a longer deadline has passed at once: 2^31 ms are 24.8 days. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
const TIMEOUT_UNITS: Record<string, number> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000001,
};

/**
 * A burst of cancelled calls on one connection must not end it: thousands of watches share one. Node's own
 * limit is 1,000 and 33 a second (CVE-2023-44487); every reset here costs the peer a call of its own.
 */
const RESET_BURST = 100_000;
const RESET_RATE = 10_000;

/**
 * Makes a server of grpc-js on HTTP/2 sessions as this transport needs them. The receive windows of streams are raised: grpc-js
 * leaves them at 64 KiB, which bounds each stream to one such window in a round trip, and takes `grpc-node.flow_control_window` on clients only (grpc-node PR
 * 3058).
 *
 * @throws an error that names the version of grpc-js if it is not built as expected
 */
export function createServer(
  options: ServerOptions,
  streamWindow: number,
  onSession: (session: ServerHttp2Session) => void,
  limit?: ConnectionLimit,
): Server {
  // It writes to standard error, beside the log; what it has to say comes as errors as well.
  setLogVerbosity(logVerbosity.NONE);
  const server = new Server(options);
  const internals = server as unknown as {
    commonServerOptions?: { settings?: object };
    createHttp2Server?: (credentials: unknown) => Http2Server;
  };
  const { commonServerOptions, createHttp2Server } = internals;
  if (!commonServerOptions || !createHttp2Server) throw unknownGrpcJs('its HTTP/2 server');
  Object.assign(commonServerOptions, {
    settings: { ...commonServerOptions.settings, initialWindowSize: streamWindow },
    streamResetBurst: RESET_BURST,
    streamResetRate: RESET_RATE,
  });
  const limitConnections = limit && sharedLimit(limit);
  internals.createHttp2Server = (credentials) => {
    const http2Server = createHttp2Server.call(server, credentials);
    http2Server.on('session', onSession);
    limitConnections?.(http2Server);
    http2Server.prependListener('stream', prepareStream);
    return http2Server;
  };
  return server;
}

/**
 * Returns a function to call with each HTTP/2 server, before it listens; the limit is for all their connections together.
 * grpc-js makes one server for each address that the host's name stands for. One that can't listen has no connections.
 */
function sharedLimit({ max, onRefused }: ConnectionLimit): (server: Http2Server) => void {
  const open = new Map<Http2Server, number>();
  let total = 0;
  const count = (server: Http2Server, change: number): void => {
    total += change;
    open.set(server, (open.get(server) ?? 0) + change);
    for (const [each, own] of open) each.maxConnections = max - (total - own);
  };
  return (server) => {
    count(server, 0);
    server.on('drop', onRefused);
    server.on('connection', (socket) => {
      count(server, 1);
      socket.once('close', () => count(server, -1));
    });
  };
}

/**
 * Removes headers that grpc-js misreads (a malformed grpc-timeout, a content-type that only begins with
 * application/grpc), and notes grpc-encoding.
 */
function prepareStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
  if (!isUsable(headers['grpc-timeout'])) delete headers['grpc-timeout'];
  // It serves every type that begins with application/grpc, grpc-web's too, and answers 415 where there is none.
  if (!CONTENT_TYPE.test(headers['content-type'] ?? '')) delete headers['content-type'];
  const encoding = headers['grpc-encoding'];
  if (typeof encoding === 'string' && encoding !== 'identity') encodings.set(stream, encoding);
}

/** The content types of gRPC with protobuf; parameters may follow. */
const CONTENT_TYPE = /^application\/grpc(\+proto)?[ \t]*(;|$)/;

/** Whether grpc-js does right with it: it answers a malformed one while the handler goes on. */
function isUsable(timeout: unknown): boolean {
  if (timeout === undefined) return true;
  const match = typeof timeout === 'string' ? /^(\d{1,8})([HMSmun])$/.exec(timeout) : null;
  return match !== null && Number(match[1]) * TIMEOUT_UNITS[match[2]] <= MAX_TIMEOUT_MS;
}

const encodings = new WeakMap<ServerHttp2Stream, string>();

/** The grpc-encoding of a request stream. */
export function encodingOf(stream: ServerHttp2Stream): string {
  return encodings.get(stream) ?? 'identity';
}

/**
 * Returns the HTTP/2 stream under a call of grpc-js.
 *
 * @throws an error that names the version of grpc-js if the stream is not where it was
 */
export function http2StreamOf(call: object): ServerHttp2Stream {
  let layer = (call as { call?: Layer }).call;
  while (layer?.nextCall) layer = layer.nextCall; // server interceptors
  const stream = layer?.stream;
  if (!stream) throw unknownGrpcJs('the HTTP/2 stream of a call');
  return stream;
}

interface Layer {
  nextCall?: Layer;
  stream?: ServerHttp2Stream;
}

/**
 * Takes the reading of a stream from grpc-js, which still sends its headers, its trailers and its resets. To be called while
 * grpc-js calls the handler: its listeners are the newest then. Node has an older one for "end" where the request has ended.
 */
export function takeReading(stream: ServerHttp2Stream): void {
  for (const event of ['data', 'end']) {
    const newest = stream.listeners(event).at(-1);
    if (newest) stream.off(event, newest as () => void);
  }
}

/** How long (milliseconds) the call of checkGrpcJs() may take. It takes some, and more only on a machine that is busy. */
const CHECK_TIMEOUT = 10_000;
const CHECK_PATH = '/check/Echo';
const CHECK_WINDOW = 128 * 1024;
/** A message in its frame. */
const CHECK_MESSAGE = Buffer.from([0, 0, 0, 0, 1, 1]);

/**
 * Tries all that this file relies on, in one call over a connection in memory: its handler takes the reading of the stream,
 * and echoes a message straight to it, between the headers and the trailers of grpc-js. The call has a header that grpc-js
 * would refuse, which has to be gone by then.
 *
 * @throws an error that names the version of grpc-js and what is not where it was
 */
export async function checkGrpcJs(): Promise<void> {
  const server = createServer({ 'grpc.enable_channelz': 0 }, CHECK_WINDOW, () => {});
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const [here, there] = duplexPair();
  injector.injectConnection(there);
  const client = connect('http://localhost', { createConnection: () => here });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(() => reject(unknownGrpcJs('the end of a call')), CHECK_TIMEOUT);
  const expectSame = (what: string, found: unknown, expected: unknown): void => {
    if (found !== expected) reject(unknownGrpcJs(`${what} (${String(found)})`));
  };
  const echo = (call: ServerDuplexStream<Buffer, Buffer>): void => {
    try {
      const stream = http2StreamOf(call);
      for (const event of ['data', 'end'])
        expectSame(`its listener for "${event}"`, stream.listenerCount(event), 1);
      takeReading(stream);
      call.on('data', () => reject(unknownGrpcJs('what it reads a call with')));
      call.sendMetadata(new Metadata());
      stream.on('data', (chunk: Buffer) => stream.write(chunk)).on('end', () => call.end());
    } catch (error) {
      reject(error);
    }
  };
  server.register(CHECK_PATH, echo, asIs, asIs, 'bidi');
  const headers = { 'content-type': 'application/grpc', te: 'trailers', 'grpc-timeout': 'never' };
  const call = client.request({ ':method': 'POST', ':path': CHECK_PATH, ...headers });
  const echoed: Buffer[] = [];
  call.on('data', (chunk: Buffer) => echoed.push(chunk)).on('error', reject);
  call.on('trailers', (trailers: IncomingHttpHeaders) => {
    expectSame('the status of a call', trailers['grpc-status'], '0');
    expectSame('the bytes of a call', Buffer.concat(echoed).equals(CHECK_MESSAGE), true);
    const { initialWindowSize } = client.remoteSettings;
    expectSame('the window of a stream', initialWindowSize, CHECK_WINDOW);
    resolve();
  });
  client.on('error', reject);
  call.on('response', () => call.end(CHECK_MESSAGE));
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

function unknownGrpcJs(what: string): Error {
  const { version } = createRequire(import.meta.url)('@grpc/grpc-js/package.json') as {
    version: string;
  };
  return new Error(
    `@grpc/grpc-js ${version} has ${what} in another place than the version of package.json: install that one (npm install)`,
  );
}
