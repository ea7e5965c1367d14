import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as http2Connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { frame } from '../../src/wire/frames.js';

/** A client that speaks HTTP/2 by hand, for what no gRPC library would send. */
export class RawClient {
  private constructor(readonly session: ClientHttp2Session) {}

  static async connect(
    address: string,
    settings: { initialWindowSize?: number } = {},
  ): Promise<RawClient> {
    // Node closes streams of a client that has more than 10 MB under way.
    const session = http2Connect(`http://${address}`, { settings, maxSessionMemory: 100_000 });
    await new Promise((resolve, reject) => {
      session.once('remoteSettings', resolve);
      session.once('error', reject);
    });
    session.on('error', () => {});
    return new RawClient(session);
  }

  /** Opens a call; the request stream stays open. */
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

  /** Resolves once the server has seen all that was sent until now: it answers a ping behind that. */
  async pinged(): Promise<void> {
    await new Promise<void>((resolve, reject) =>
      this.session.ping((error) => (error ? reject(error) : resolve())),
    );
  }

  /**
   * Resolves once it can send no more of what was written: three answers in a row came although nothing went out between
   * them. The server has read all that went out, and asked for no more.
   */
  async sentAll(): Promise<void> {
    let sent = -1;
    for (let same = 0; same < 3; same++) {
      await new Promise<void>((resolve, reject) => {
        this.session.once('close', () => reject(new Error('the connection was closed')));
        this.session.ping((error) => (error ? reject(error) : resolve()));
      });
      await sleep(50);
      // A PING and what node writes with it are small.
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
  /** The trailers (of the headers, where there is nothing else), or undefined if the stream was reset. */
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

  /** Whether the client's window is used up. Before an answer, node says that it is 0 at times. */
  get isFull(): boolean {
    return this.hasHeaders && this.stream.state.localWindowSize === 0;
  }

  send(message: Uint8Array): this {
    this.stream.write(frame(message));
    return this;
  }

  /** Sends a message as compressed, whatever it is. */
  compressed(message: Uint8Array): this {
    const framed = frame(message);
    framed[0] = 1;
    this.stream.write(framed);
    return this;
  }

  /** Reads and drops what comes, so that trailers arrive. */
  drop(): this {
    this.stream.resume();
    return this;
  }
}
