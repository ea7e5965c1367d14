import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import {
  connect as connectTls,
  type ConnectionOptions as TlsConnectionOptions,
  type SecureContextOptions,
} from 'node:tls';
import { now } from '../clock.js';
import { FeedError } from '../errors.js';
import type { CallConnection } from './call.js';
import { dial } from './dial.js';
import type { ClientTls, LoadedTls } from './tls.js';

export interface ConnectionOptions {
  readonly tls: ClientTls | undefined;
  /** Milliseconds from the beginning of a connection until the server's HTTP/2 settings have to be there. */
  readonly connectTimeout: number;
  /** After this many milliseconds without a byte from the server, it is asked for a sign of life (HTTP/2's PING). */
  readonly keepaliveTime: number;
  /** A server that stays silent for this many milliseconds more is gone. */
  readonly keepaliveTimeout: number;
  /** HTTP/2's window of a stream: bytes that the server may send ahead while nothing is read. */
  readonly streamWindow: number;
}

/** A server to connect to. */
export interface Endpoint {
  /** The name or IP address to connect to. */
  readonly host: string;
  readonly port: number;
  /** The name that the user gave, for TLS and for HTTP/2's `:authority`. */
  readonly name: string;
}

/**
 * HTTP/2's window of a connection: bytes in flight to this client on all its streams. Node gives it back as soon as it has read
 * from the socket, so it does not bound what streams hold in memory: their own windows do.
 */
const CONNECTION_WINDOW_BYTES = 16 * 2 ** 20;

/** Node ends streams when a session holds more than this many MB. Its default of 10 is less than some streams' windows. */
const MAX_SESSION_MEMORY_MB = 1_000;

/** An HTTP/2 connection that the server has answered on. */
export class Connection implements CallConnection {
  readonly openedAt = now();
  private ending: FeedError | undefined;
  /** No new calls are made on this connection; those that are open go on. */
  private isRetired = false;
  private openCalls = 0;
  /** How many bytes had come when keepalive looked last. */
  private bytesSeen = 0;
  /** Keepalive has sent a PING, because no byte came. */
  private isPinged = false;
  private timer: NodeJS.Timeout | undefined;
  private nextLook: NodeJS.Immediate | undefined;

  private constructor(
    readonly address: string,
    private readonly session: ClientHttp2Session,
    private readonly options: ConnectionOptions,
  ) {
    session.on('goaway', () => this.retire());
    session.on('error', (error) => this.fail('was lost', error));
    session.on('close', () => {
      this.stopKeepalive();
      this.fail('was closed');
    });
    session.unref(); // An idle connection keeps no process alive.
  }

  /**
   * Resolves once the server's HTTP/2 settings have come. Rejects with UNAVAILABLE, and with CANCELLED when `closing` fires,
   * so that a client that was closed keeps no process alive.
   */
  static async open(
    endpoint: Endpoint,
    options: ConnectionOptions,
    closing: AbortSignal = new AbortController().signal,
  ): Promise<Connection> {
    const address = formatAddress(endpoint.host, endpoint.port);
    const tls = await options.tls?.load();
    const giveUp = new AbortController();
    const { signal } = giveUp;
    const onClosing = (): void => giveUp.abort(closed());
    if (closing.aborted) onClosing();
    closing.addEventListener('abort', onClosing);
    const timer = setTimeout(() => {
      const seconds = options.connectTimeout / 1_000;
      giveUp.abort(new FeedError('UNAVAILABLE', `${address} did not answer within ${seconds} s`));
    }, options.connectTimeout);
    let session: ClientHttp2Session | undefined;
    try {
      const socket = await dial(endpoint.host, endpoint.port, signal);
      session = openSession(endpoint, tls, options.streamWindow, socket);
      await settled(session, signal);
    } catch (error) {
      session?.on('error', () => {});
      session?.destroy();
      throw signal.aborted
        ? signal.reason
        : cantConnect(address, tls !== undefined, error as Error | undefined);
    } finally {
      clearTimeout(timer);
      closing.removeEventListener('abort', onClosing);
    }
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    return new Connection(address, session, options);
  }

  onClose(listener: () => void): void {
    this.session.once('close', listener);
  }

  /** True if calls can begin on this connection. */
  get isUsable(): boolean {
    return !this.failure && !this.isRetired && !this.session.closed;
  }

  get failure(): FeedError | undefined {
    // Node emits 'close' for the streams of a lost session before it emits 'error' or 'close' for the session.
    if (this.session.destroyed) this.fail('was lost');
    return this.ending;
  }

  /** Lets no new calls begin on this connection, and closes it when its open calls have ended. */
  retire(): void {
    this.isRetired = true;
    if (this.openCalls === 0) this.session.close();
  }

  /** True while as many calls are open as the server takes on a connection: node would keep the next one waiting. */
  get isFull(): boolean {
    // On a server that takes none at the moment, one call is started, which waits.
    const { maxConcurrentStreams = Infinity } = this.session.remoteSettings;
    return this.openCalls >= Math.max(1, maxConcurrentStreams);
  }

  /**
   * Starts a call, such as `/feed.v1.FeedService/Watch`.
   *
   * @throws FeedError UNAVAILABLE if the connection has just ended, INVALID_ARGUMENT for headers that HTTP/2 forbids
   */
  request(path: string, headers: Readonly<Record<string, string>>): ClientHttp2Stream {
    let stream: ClientHttp2Stream;
    try {
      stream = this.session.request(
        {
          ...headers,
          [constants.HTTP2_HEADER_METHOD]: 'POST',
          [constants.HTTP2_HEADER_PATH]: path,
          'content-type': 'application/grpc',
          te: 'trailers',
        },
        { endStream: false },
      );
    } catch (cause) {
      if (cause instanceof TypeError)
        throw new FeedError('INVALID_ARGUMENT', cause.message, { cause });
      const message = `the connection to ${this.address} takes no more calls`;
      throw this.failure ?? new FeedError('UNAVAILABLE', message, { cause });
    }
    if (this.openCalls++ === 0) {
      this.session.ref();
      if (!this.isUnanswered) this.startKeepalive();
    }
    stream.once('close', () => {
      if (--this.openCalls > 0) return;
      // Otherwise, calls that all end within keepaliveTimeout would never find that the server is gone.
      if (!this.isUnanswered) this.stopKeepalive();
      if (!this.session.destroyed) this.session.unref();
      if (this.isRetired) this.session.close();
    });
    return stream;
  }

  /** Closes the connection at once. Calls that are open end with CANCELLED. */
  close(): void {
    this.ending ??= closed();
    this.session.destroy();
  }

  /**
   * Looks again and again whether the server lives, while calls are open. Any byte received counts as life, not only the answer
   * to a PING: on a slow link that answer comes after megabytes of events. A connection that was idle sends a PING at once,
   * because its server may have gone meanwhile without a word. The time of an unanswered PING runs on when the last call ends. The
   * timers keep no process alive: the session does while calls are open.
   */
  private startKeepalive(): void {
    const { keepaliveTime, keepaliveTimeout } = this.options;
    const look = (isLate = false): void => {
      if (this.session.destroyed) return;
      const bytes = this.session.socket.bytesRead;
      const isAlive = bytes !== this.bytesSeen;
      this.bytesSeen = bytes;
      if (!isAlive && this.isPinged) {
        // If this process stood still, an answer may be there that node has not read. An immediate runs after node has.
        if (!isLate) {
          this.nextLook = setImmediate(look, true);
          return;
        }
        const seconds = (keepaliveTime + keepaliveTimeout) / 1_000;
        this.fail(`gave no sign of life for ${seconds} s`);
        this.session.destroy();
        return;
      }
      this.isPinged = !isAlive;
      if (!this.isPinged) {
        if (this.openCalls > 0) this.timer = setTimeout(look, keepaliveTime).unref();
        return;
      }
      this.session.ping(() => {});
      // Node writes the PING in an immediate. One that is set after it begins the time for the answer: if this process stands still until
      // then, the server has not been asked yet.
      this.nextLook = setImmediate(() => {
        this.timer = setTimeout(look, keepaliveTimeout).unref();
      });
    };
    this.stopKeepalive(); // The time of an answered PING may still run.
    this.isPinged = false;
    this.bytesSeen = this.session.socket.bytesRead;
    look();
  }

  /** True while no byte has come since keepalive sent a PING. */
  private get isUnanswered(): boolean {
    if (!this.isPinged || this.session.destroyed) return false;
    return this.session.socket.bytesRead === this.bytesSeen;
  }

  private stopKeepalive(): void {
    clearTimeout(this.timer);
    clearImmediate(this.nextLook);
  }

  /** Notes why the connection ended, unless that is known already. */
  private fail(what: string, cause?: Error): void {
    this.ending ??= new FeedError('UNAVAILABLE', `the connection to ${this.address} ${what}`, {
      cause,
    });
  }
}

/** Joins a host and a port; an IPv6 address gets brackets. */
export function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Begins an HTTP/2 connection, with TLS if `tls` is given. The session emits 'remoteSettings' once the server has answered.
 */
export function openSession(
  endpoint: Endpoint,
  tls: LoadedTls | undefined,
  streamWindow: number,
  connected?: Socket,
): ClientHttp2Session {
  const scheme = tls ? 'https' : 'http';
  const session = connect(`${scheme}://${formatAddress(endpoint.name, endpoint.port)}`, {
    createConnection: () => {
      const socket =
        connected && !tls ? connected : openSocket(endpoint, tls, { socket: connected });
      // The session does not learn of a TLS alert that comes after the handshake, such as that for a missing certificate.
      return socket.on('error', (error) => {
        session.destroy(error);
        socket.destroy();
      });
    },
    settings: { initialWindowSize: streamWindow, enablePush: false },
    maxSessionMemory: MAX_SESSION_MEMORY_MB,
  });
  return session;
}

/**
 * Begins to connect: with TLS if `tls` is given, over plain TCP otherwise.
 *
 * @param overrides options of node's tls.connect() that replace those made of `tls`
 */
export function openSocket(
  endpoint: Endpoint,
  tls: LoadedTls | undefined,
  overrides: TlsConnectionOptions = {},
): Socket {
  return tls
    ? connectTls({
        ...endpointOf(endpoint),
        ...contextOf(tls),
        ALPNProtocols: ['h2'],
        ...overrides,
      })
    : connectTcp(endpointOf(endpoint));
}

/**
 * Resolves once the server's HTTP/2 settings have come. Rejects with the signal's reason, with the session's error, or with
 * undefined if the session closes without one.
 */
function settled(session: ClientHttp2Session, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error));
    session.once('remoteSettings', () => resolve());
    session.once('error', reject);
    // eslint-disable-next-line prefer-promise-reject-errors
    session.once('close', () => reject(undefined));
  });
}

function endpointOf({ host, port, name }: Endpoint) {
  // By this name (SNI) the server chooses its certificate. It must not be an IP address (RFC 6066).
  return { host, port, servername: /^[\d.]+$|:/.test(name) ? '' : name };
}

function contextOf({ ca, cert, key, serverName }: LoadedTls): SecureContextOptions & {
  servername?: string;
} {
  return { ca, cert, key, ...(serverName ? { servername: serverName } : {}) };
}

function closed(): FeedError {
  return new FeedError('CANCELLED', 'the client was closed');
}

function cantConnect(address: string, usesTls: boolean, cause?: Error): FeedError {
  const code = cause && 'code' in cause ? String(cause.code) : undefined;
  if (code === 'ERR_HTTP2_ERROR' || code === 'ERR_HTTP2_SESSION_ERROR')
    return new FeedError('UNAVAILABLE', `${address} does not speak gRPC (HTTP/2)`, { cause });
  if (code === 'ERR_SSL_WRONG_VERSION_NUMBER')
    return new FeedError('UNAVAILABLE', `${address} does not speak TLS there (${code})`, { cause });
  const why =
    code ?? cause?.message ?? `it closed the connection${usesTls ? '' : ' (does it expect TLS?)'}`;
  return new FeedError('UNAVAILABLE', `can't connect to ${address}: ${why}`, { cause });
}
