import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as http2Connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { frame } from '../../src/wire/frames.js';
import { testTls } from './tls.js';

/** A client on node's HTTP/2, for requests that no gRPC library would send. */
export class RawClient {
  private constructor(readonly session: ClientHttp2Session) {}

  static async connect(
    address: string,
    settings: { initialWindowSize?: number } = {},
  ): Promise<RawClient> {
    // By default, node ends streams of a session that holds more than 10 MB.
    const session = http2Connect(`${testTls ? 'https' : 'http'}://${address}`, {
      settings,
      maxSessionMemory: 100_000,
      ...(testTls && { ca: testTls.ca, cert: testTls.cert, key: testTls.key }),
    });
    await new Promise((resolve, reject) => {
      session.once('remoteSettings', resolve);
      session.once('error', reject);
    });
    session.on('error', () => {});
    return new RawClient(session);
  }

  /** Opens a call and leaves its request stream open. */
  open(method: string, headers: OutgoingHttpHeaders = {}): RawCall {
    return new RawCall(
      this.session.request({
        ':method': 'POST',
        ':path': `/feed.v1.FeedService/${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
        ...headers,
      }),
    );
  }

  /** Resolves once the server has read all that was sent before: it answers a PING after that. */
  async pinged(): Promise<void> {
    await new Promise<void>((resolve, reject) =>
      this.session.ping((error) => (error ? reject(error) : resolve())),
    );
  }

  /**
   * Resolves once no more of what was written can be sent. The sign is that the server answered three PINGs in a row and
   * nothing was sent between them: it has read all that was sent, and has not widened its window.
   */
  async sentAll(): Promise<void> {
    let sent = -1;
    for (let same = 0; same < 3; same++) {
      await new Promise<void>((resolve, reject) => {
        this.session.once('close', () => reject(new Error('the connection was closed')));
        this.session.ping((error) => (error ? reject(error) : resolve()));
      });
      await sleep(50);
      // The PING, and what node writes with it, stay below 1,000 bytes.
      const { bytesWritten } = this.session.socket;
      if (bytesWritten - sent > 1_000) same = 0;
      sent = bytesWritten;
    }
  }

  close(): void {
    this.session.destroy();
  }
}

export class RawCall {
  readonly headers: Promise<IncomingHttpHeaders>;
  /** The trailers, or the headers of a response that has nothing else; undefined if the stream was reset. */
  readonly trailers: Promise<IncomingHttpHeaders | undefined>;

  readonly closed: Promise<void>;
  private hasHeaders = false;

  constructor(readonly stream: ClientHttp2Stream) {
    stream.on('error', () => {});
    stream.once('response', () => (this.hasHeaders = true));
    this.closed = new Promise((resolve) => stream.once('close', resolve));
    this.headers = new Promise((resolve) => stream.once('response', resolve));
    this.trailers = new Promise((resolve) => {
      stream.once('response', (headers) => {
        if ('grpc-status' in headers) resolve(headers);
      });
      stream.once('trailers', resolve);
      stream.once('close', () => resolve(undefined));
    });
  }

  /** True when the client's receive window is used up. Before the response headers, node may report 0 without that. */
  get isFull(): boolean {
    return this.hasHeaders && this.stream.state.localWindowSize === 0;
  }

  send(message: Uint8Array): this {
    this.stream.write(frame(message));
    return this;
  }

  /** Sends a message with the flag for compressed messages set, whatever its bytes are. */
  compressed(message: Uint8Array): this {
    const framed = frame(message);
    framed[0] = 1;
    this.stream.write(framed);
    return this;
  }

  /** Reads and discards the response, because trailers arrive only after the data before them is read. */
  drop(): this {
    this.stream.resume();
    return this;
  }
}
