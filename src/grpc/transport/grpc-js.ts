import {
  constants,
  type Http2SecureServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { createRequire } from 'node:module';
import type { Duplex } from 'node:stream';
import {
  logVerbosity,
  Server,
  type ServerInterceptor,
  type ServerOptions,
  setLogVerbosity,
  status,
} from '@grpc/grpc-js';
import { type ConnectionLimit, sharedLimit } from './connection-limit.js';
import { RequestDecoder } from './request-decoder.js';
import type { ServerTls } from './server-tls.js';
import { countDecompressed } from './waiting-request.js';

// All that this transport relies on inside grpc-js is in this file, and check-grpc-js.ts tries it at each start.

/** The longest deadline, 24.8 days. grpc-js cuts it to 32 bits (`| 0` in server-interceptors.js): a longer one passes at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
const TIMEOUT_UNITS: Record<string, number> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 0.001,
  n: 0.000001,
};

/** The share of `resetBurst` that a client may reset each second in the long run. */
const RESET_SHARE = 1 / 10;

export interface Http2Limits {
  /** The receive window of each stream, in bytes. */
  readonly streamWindow: number;
  /**
   * How many streams a client may reset at once on a connection, and a tenth of it a second from then on. Node ends a
   * connection beyond that. Its own defaults, 1,000 and 33 a second (CVE-2023-44487), would end one whose client
   * cancels thousands of watches.
   */
  readonly resetBurst: number;
  /**
   * The most that the headers of a call may take, as HTTP/2 counts them: names and values, and 32 bytes for each header.
   * Clients are told. A call with more is reset with ENHANCE_YOUR_CALM, which gRPC clients report as RESOURCE_EXHAUSTED.
   */
  readonly headerBytes: number;
}

export interface Http2Listeners {
  readonly onSession: (session: ServerHttp2Session, socket: Duplex) => void;
  /** Called with each stream, and the size of its headers, before grpc-js sees it. */
  readonly onStream?: (stream: ServerHttp2Stream, headerBytes: number) => void;
}

/**
 * How many bytes the single request of a method may have, by its path, where that is less than `grpc.max_receive_message_length`.
 * It holds before and after the request is decompressed.
 */
export type LargestRequests = Readonly<Record<string, number>>;

/**
 * Creates a grpc-js server whose HTTP/2 sessions have these limits. grpc-js leaves the window at 64 KiB, so that a stream
 * gets no more than that in a round trip, and takes `grpc-node.flow_control_window` on clients only (grpc-node PR 3058).
 *
 * With `tls`, the credentials that the server listens with must be those of serverCredentials().
 *
 * @throws UnknownGrpcJsError
 */
export function createServer(
  options: ServerOptions,
  { streamWindow, resetBurst, headerBytes }: Http2Limits,
  { onSession, onStream }: Http2Listeners,
  limit?: ConnectionLimit,
  tls?: ServerTls,
  largestRequests: LargestRequests = {},
): Server {
  // grpc-js would write to standard error, beside the log. What it writes there also reaches us as errors.
  setLogVerbosity(logVerbosity.NONE);
  const longest = options['grpc.max_receive_message_length'] ?? Infinity;
  const interceptors = [checkRequests(largestRequests, longest)];
  const server = new Server({ ...options, interceptors });
  const internals = server as unknown as {
    commonServerOptions?: { settings?: object };
    createHttp2Server?: (credentials: unknown) => Http2Server;
  };
  const { commonServerOptions, createHttp2Server } = internals;
  if (!commonServerOptions || !createHttp2Server) throw new UnknownGrpcJsError('its HTTP/2 server');
  Object.assign(commonServerOptions, {
    settings: {
      ...commonServerOptions.settings,
      initialWindowSize: streamWindow,
      maxHeaderListSize: headerBytes,
    },
    streamResetBurst: resetBurst,
    streamResetRate: Math.ceil(resetBurst * RESET_SHARE),
    ...(tls && { handshakeTimeout: tls.handshakeTimeout }),
  });
  const limitConnections = limit && sharedLimit(limit);
  internals.createHttp2Server = (credentials) => {
    const http2Server = createHttp2Server.call(server, credentials);
    if (tls) useCertificates(http2Server, tls);
    let newest!: Duplex;
    // Node makes the session while it emits this.
    const event = tls ? 'secureConnection' : 'connection';
    http2Server.prependListener(event, (socket: Duplex) => (newest = socket));
    http2Server.on('session', (session) => onSession(session, newest));
    limitConnections?.(http2Server);
    http2Server.prependListener('stream', prepareStream);
    http2Server.prependListener('stream', (stream, _headers, _flags, rawHeaders) => {
      if (stream.closed || stream.destroyed) {
        answerNothing(stream);
        return;
      }
      const size = sizeOf(rawHeaders);
      if (size > headerBytes) resetSoon(stream);
      onStream?.(stream, size);
    });
    return http2Server;
  };
  return server;
}

/**
 * Serves new connections with the newest certificates, from now on and after each change. grpc-js's own credentials that can
 * change take neither a TLS version nor ciphers, and refuse every connection after a pair that does not match.
 */
function useCertificates(
  server: Http2Server,
  { certificates, onFailedHandshake }: ServerTls,
): void {
  const secure = server as unknown as Partial<Http2SecureServer>;
  if (!secure.setSecureContext) throw new UnknownGrpcJsError('its HTTP/2 server with TLS');
  const update = (): void => secure.setSecureContext!(certificates.context);
  update();
  certificates.onChange(update);
  server.on('tlsClientError', onFailedHandshake);
}

/** Returns how much headers take, as HTTP/2 counts them. They are names and values in turn, of Latin-1 characters. */
function sizeOf(rawHeaders: readonly string[]): number {
  let size = 16 * rawHeaders.length;
  for (const text of rawHeaders) size += text.length;
  return size;
}

/**
 * Keeps grpc-js from answering a stream that its client has reset before node emits it. Over TLS, node may emit a stream late
 * (take-chunks.ts). grpc-js answers an unknown method at once, and the error that node throws then would end the process.
 */
function answerNothing(stream: ServerHttp2Stream): void {
  stream.respond = () => {};
}

/**
 * Resets a call whose headers are too large. Node does the same, before this sees them, once the client has acknowledged the
 * settings of the connection, which a hostile one never does.
 */
function resetSoon(stream: ServerHttp2Stream): void {
  // Not before grpc-js has looked at it: it may respond at once, as to an unknown method, which throws on a closed stream.
  process.nextTick(() => stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM));
}

/**
 * Removes headers that grpc-js misreads (a malformed grpc-timeout, a content-type that only begins with
 * application/grpc), and notes grpc-encoding.
 */
function prepareStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
  if (!isUsable(headers['grpc-timeout'])) delete headers['grpc-timeout'];
  // grpc-js serves every type that begins with application/grpc, also grpc-web's. A request without a type gets a 415.
  if (!CONTENT_TYPE.test(headers['content-type'] ?? '')) delete headers['content-type'];
  const encoding = headers['grpc-encoding'];
  if (typeof encoding === 'string' && encoding !== 'identity') encodings.set(stream, encoding);
}

/** The innermost layer of a call of grpc-js, which reads and writes the HTTP/2 stream. */
interface BaseCall {
  readonly stream: ServerHttp2Stream;
  /** True once the call has ended, and "cancelled" is emitted or about to be. */
  readonly cancelNotified: boolean;
  /** Is given each DATA frame, and returns the messages that are whole. */
  decoder: { write(data: Buffer): Buffer[] };
  /** @param framed a message with its flag and its length, as it came */
  decompressMessage(framed: Buffer, encoding: string): Buffer | Promise<Buffer>;
}

/**
 * Makes grpc-js refuse a message whose flag its grpc-encoding does not allow, which it would take as plain, and one that is too large for
 * its method. Grpc-js reads the messages of calls with a single request, by RequestDecoder; InboundFrames reads those of request streams.
 *
 * @param longest the most bytes of a request whose method is not in `largest`
 */
function checkRequests(largest: LargestRequests, longest: number): ServerInterceptor {
  const checks = new Map(
    Object.entries(largest).map(([path, bytes]) => [path, decompressUpTo(bytes)]),
  );
  return ({ path, requestStream }, call) => {
    const base = call as unknown as Partial<BaseCall>;
    // Without these, http2StreamOf() refuses the call.
    if (base.decompressMessage !== undefined)
      base.decompressMessage = checks.get(path) ?? decompressChecked;
    if (base.decoder !== undefined && !requestStream)
      base.decoder = new RequestDecoder(largest[path] ?? longest);
    return call as ReturnType<ServerInterceptor>;
  };
}

function decompressUpTo(bytes: number): BaseCall['decompressMessage'] {
  return async function (this: BaseCall, framed, encoding) {
    const message = await decompressChecked.call(this, framed, encoding);
    if (message.length <= bytes) return message;
    const details = `a request of ${message.length} bytes is over the limit of ${bytes}`;
    throw new MessageRefused(status.RESOURCE_EXHAUSTED, details);
  };
}

/** A message of a call with a single request is refused. Grpc-js sends `code` and `details` of what it catches. */
class MessageRefused extends Error {
  constructor(
    readonly code: status,
    readonly details: string,
  ) {
    super(details);
  }
}

/** All calls share this function. grpc-js calls it with its call as `this`, and sends the status that it rejects with. */
async function decompressChecked(
  this: BaseCall,
  framed: Buffer,
  encoding: string,
): Promise<Buffer> {
  const flag = framed[0];
  // For an unknown flag, grpc-js passes "identity" as well.
  if (flag !== 0 && encoding === 'identity') {
    const details = `a message has the flag ${flag}, which its grpc-encoding does not allow`;
    throw new MessageRefused(status.INTERNAL, details);
  }
  const base = Object.getPrototypeOf(this) as BaseCall;
  const message = await base.decompressMessage.call(this, framed, encoding);
  countDecompressed(this.stream, message.length);
  return message;
}

/** The content types of gRPC with protobuf; parameters may follow. */
const CONTENT_TYPE = /^application\/grpc(\+proto)?[ \t]*(;|$)/;

/** False for a grpc-timeout that is malformed, which grpc-js answers while the handler goes on, or that is too long for it. */
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
 * Returns the HTTP/2 stream under a call of grpc-js, and looks whether checkRequests() found what it needs.
 *
 * @throws UnknownGrpcJsError
 */
export function http2StreamOf(call: object): ServerHttp2Stream {
  const layer = innermost(call);
  const stream = layer?.stream;
  if (!stream) throw new UnknownGrpcJsError('the HTTP/2 stream of a call');
  if (!layer?.decompressMessage || !layer.decoder)
    throw new UnknownGrpcJsError('how it reads a single request');
  return stream;
}

/**
 * True if grpc-js has sent a call's status by itself, such as at its deadline. The handler of a single request is called even then, once the
 * request ends, and its call never emits "cancelled".
 */
export function hasEnded(call: object): boolean {
  return innermost(call)!.cancelNotified!;
}

interface Layer extends Partial<BaseCall> {
  nextCall?: Layer;
}

function innermost(call: object): Layer | undefined {
  let layer = (call as { call?: Layer }).call;
  while (layer?.nextCall) layer = layer.nextCall; // server interceptors
  return layer;
}

/**
 * Removes grpc-js's listeners for "data" and "end", so that the caller can read the stream; grpc-js still sends headers,
 * trailers and resets. Call it while grpc-js calls the handler, when its listeners are the newest. If the request has ended,
 * node has an older listener for "end", which must stay.
 */
export function takeReading(stream: ServerHttp2Stream): void {
  for (const event of ['data', 'end']) {
    const newest = stream.listeners(event).at(-1);
    if (newest) stream.off(event, newest as () => void);
  }
}

/** The installed grpc-js does not have the internals that this transport needs. */
export class UnknownGrpcJsError extends Error {
  constructor(difference: string, options?: ErrorOptions) {
    const { version } = createRequire(import.meta.url)('@grpc/grpc-js/package.json') as {
      version: string;
    };
    super(
      `@grpc/grpc-js ${version} differs from the version of package.json in ${difference}: install that one (npm ci)`,
      options,
    );
  }
}
