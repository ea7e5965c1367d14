import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import {
  connect as connectTls,
  type ConnectionOptions as TlsConnectionOptions,
  type SecureContextOptions,
} from 'node:tls';
import { FeedError } from '../errors.js';
import type { CallConnection } from './call.js';

/** Certificates for TLS, as PEM. */
export interface TlsOptions {
  /** The authorities that sign servers' certificates; those of the system by default. */
  readonly ca?: string | Buffer;
  /** The client's own certificate and its key, for a server that asks for one. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** The name that the server's certificate must have; the address's host by default. */
  readonly serverName?: string;
}

export interface ConnectionOptions {
  readonly tls: TlsOptions | undefined;
  /** Milliseconds that a connection may take until the server has answered on it. */
  readonly connectTimeout: number;
  /** After this many milliseconds without a byte from the server, it is asked for a sign of life (HTTP/2's PING). */
  readonly keepaliveTime: number;
  /** A server that stays silent for this many milliseconds more is gone. */
  readonly keepaliveTimeout: number;
  /** Bytes that the server may send ahead on a stream of which nothing is read. */
  readonly streamWindow: number;
}

/** A place to connect to. */
export interface Endpoint {
  /** A name or an IP address. */
  readonly host: string;
  readonly port: number;
  /** The name that the user gave, for TLS and for HTTP/2's `:authority`. */
  readonly name: string;
}

/** Bytes in flight to this client on a connection, over all its streams. Node takes them from the socket at once. */
const CONNECTION_WINDOW_BYTES = 16 * 2 ** 20;

/** Node ends streams when a session holds more than this many MB; its default of 10 is less than some streams' windows. */
const MAX_SESSION_MEMORY_MB = 1_000;

/** An HTTP/2 connection that the server has answered on. */
export class Connection implements CallConnection {
  private ending: FeedError | undefined;
  /** No new calls are made on this connection; those that are open go on. */
  private isRetired = false;
  private openCalls = 0;
  private bytesSeen = 0;
  private isAsked = false;
  private timer: NodeJS.Timeout | undefined;

  private constructor(
    readonly address: string,
    private readonly session: ClientHttp2Session,
    private readonly options: ConnectionOptions,
  ) {
    session.on('goaway', () => this.retire());
    session.on('error', (error) => this.fail('was lost', error));
    session.on('close', () => {
      clearTimeout(this.timer);
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
    const session = openSession(endpoint, options);
    let onClosing!: () => void;
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => {
          const seconds = options.connectTimeout / 1_000;
          reject(new FeedError('UNAVAILABLE', `${address} did not answer within ${seconds} s`));
        }, options.connectTimeout);
        onClosing = () => reject(closed());
        closing.addEventListener('abort', onClosing);
        session.once('remoteSettings', () => resolve());
        session.once('error', (cause) => reject(cantConnect(address, cause)));
        session.once('close', () => reject(cantConnect(address)));
        session.once('remoteSettings', () => clearTimeout(timer));
        session.once('close', () => clearTimeout(timer));
      });
    } catch (error) {
      session.on('error', () => {});
      session.destroy();
      throw error;
    } finally {
      closing.removeEventListener('abort', onClosing);
    }
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    return new Connection(address, session, options);
  }

  onClose(listener: () => void): void {
    this.session.once('close', listener);
  }

  get isUsable(): boolean {
    return !this.failure && !this.isRetired && !this.session.closed;
  }

  get failure(): FeedError | undefined {
    // Node closes the streams of a lost session before it says that the session is.
    if (this.session.destroyed) this.fail('was lost');
    return this.ending;
  }

  retire(): void {
    this.isRetired = true;
    if (this.openCalls === 0) this.session.close();
  }

  /** True while as many calls are open as the server takes on a connection: Node would keep the next one waiting. */
  get isFull(): boolean {
    // A server that takes none at the moment gets one call, which waits.
    const { maxConcurrentStreams = Infinity } = this.session.remoteSettings;
    return this.openCalls >= Math.max(1, maxConcurrentStreams);
  }

  /**
   * Starts an HTTP/2 request.
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
      throw this.failure ?? new FeedError('UNAVAILABLE', `${this.address} is leaving`, { cause });
    }
    if (this.openCalls++ === 0) {
      this.session.ref();
      this.watchForLife();
    }
    stream.once('close', () => {
      if (--this.openCalls > 0) return;
      clearTimeout(this.timer);
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
   * Life is bytes received, not answers to PINGs: on a slow link an answer stands behind megabytes of events. A connection
   * that was idle is asked at once, because its server may have gone without a word.
   */
  private watchForLife(): void {
    const { keepaliveTime, keepaliveTimeout } = this.options;
    const look = (): void => {
      if (this.session.destroyed) return;
      const bytes = this.session.socket.bytesRead;
      const isAlive = bytes !== this.bytesSeen;
      this.bytesSeen = bytes;
      if (!isAlive && this.isAsked) {
        const seconds = (keepaliveTime + keepaliveTimeout) / 1_000;
        this.fail(`gave no sign of life for ${seconds} s`);
        this.session.destroy();
        return;
      }
      this.isAsked = !isAlive;
      if (this.isAsked) this.session.ping(() => {});
      this.timer = setTimeout(look, this.isAsked ? keepaliveTimeout : keepaliveTime);
    };
    this.isAsked = false;
    this.bytesSeen = this.session.socket.bytesRead;
    look();
  }

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

/** Begins an HTTP/2 connection. It emits 'remoteSettings' once the server has answered. */
export function openSession(
  endpoint: Endpoint,
  { tls, streamWindow }: Pick<ConnectionOptions, 'tls' | 'streamWindow'>,
): ClientHttp2Session {
  const scheme = tls ? 'https' : 'http';
  const session = connect(`${scheme}://${formatAddress(endpoint.name, endpoint.port)}`, {
    createConnection: () => {
      const socket = openSocket(endpoint, tls);
      // Node tells the session nothing of an alert of TLS after the handshake, such as for a missing certificate.
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
 * Begins to connect, with TLS if it is given.
 *
 * @param own settings of node's for TLS that replace those made of `tls`
 */
export function openSocket(
  endpoint: Endpoint,
  tls: TlsOptions | undefined,
  own: TlsConnectionOptions = {},
): Socket {
  return tls
    ? connectTls({ ...endpointOf(endpoint), ...contextOf(tls), ALPNProtocols: ['h2'], ...own })
    : connectTcp(endpointOf(endpoint));
}

function endpointOf({ host, port, name }: Endpoint) {
  // TLS sends the name for the server to choose its certificate by, which must not be an IP address (RFC 6066).
  return { host, port, servername: /^[\d.]+$|:/.test(name) ? '' : name };
}

function contextOf({ ca, cert, key, serverName }: TlsOptions): SecureContextOptions & {
  servername?: string;
} {
  return { ca, cert, key, ...(serverName ? { servername: serverName } : {}) };
}

function closed(): FeedError {
  return new FeedError('CANCELLED', 'the client was closed');
}

function cantConnect(address: string, cause?: Error): FeedError {
  const code = cause && 'code' in cause ? String(cause.code) : undefined;
  if (code === 'ERR_HTTP2_ERROR' || code === 'ERR_HTTP2_SESSION_ERROR')
    return new FeedError('UNAVAILABLE', `${address} does not speak gRPC (HTTP/2) there`, { cause });
  const why = code ?? cause?.message ?? 'it closed the connection';
  return new FeedError('UNAVAILABLE', `can't connect to ${address}: ${why}`, { cause });
}
