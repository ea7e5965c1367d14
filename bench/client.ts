// gRPC by hand over node's HTTP/2, so that many messages are one write.
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type IncomingHttpHeaders,
} from 'node:http2';
import { once } from 'node:events';
import { message, MessageCounter } from './events.ts';

const WINDOW_BYTES = 4 * 1024 * 1024;

export class Connection {
  private readonly session: ClientHttp2Session;

  /** @param windowBytes of each stream: so much comes that is not read */
  constructor(address: string, windowBytes = WINDOW_BYTES) {
    this.session = connect(`http://${address}`, {
      settings: { initialWindowSize: windowBytes },
      maxSessionMemory: 1000, // MB: beyond the default of 10, node ends streams
    });
    this.session.once('connect', () => this.session.setLocalWindowSize(4 * WINDOW_BYTES));
    this.session.on('error', () => {});
  }

  call(method: 'Watch' | 'UploadEvents' | 'Chat'): Call {
    return new Call(
      this.session.request({
        ':method': 'POST',
        ':path': `/feed.v1.FeedService/${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
      }),
    );
  }

  /**
   * A watch that has begun.
   *
   * @param start a field of the request and its value
   */
  async watch(
    topic: string,
    start?: 'earliest' | readonly [field: number, value: string | number],
  ): Promise<Call> {
    const call = this.call('Watch');
    const from = start === 'earliest' ? ([3, 1] as const) : start;
    call.stream.end(message([1, topic], ...(from ? [from] : [])));
    await once(call.stream, 'response');
    return call;
  }

  /** Resolves when the connection is gone, whoever ended it. */
  async closed(): Promise<void> {
    if (!this.session.closed) await new Promise((resolve) => this.session.once('close', resolve));
  }

  close(): void {
    this.session.destroy();
  }
}

export class Call {
  readonly stream: ClientHttp2Stream;
  private readonly messages = new MessageCounter();
  private waiting: { count: number; resolve: () => void } | undefined;
  private trailers: IncomingHttpHeaders = {};

  constructor(stream: ClientHttp2Stream) {
    this.stream = stream;
    stream.on('error', () => {});
    stream.on('trailers', (trailers) => (this.trailers = trailers));
  }

  /** Reads and counts what comes. */
  read(each?: (bytes: Buffer, at: number) => void): this {
    this.stream.on('data', (chunk: Buffer) => {
      this.messages.take(chunk, each);
      if (this.waiting && this.messages.count >= this.waiting.count) this.waiting.resolve();
    });
    return this;
  }

  get count(): number {
    return this.messages.count;
  }

  async has(count: number): Promise<void> {
    if (this.count >= count) return;
    await new Promise<void>((resolve, reject) => {
      this.waiting = { count, resolve };
      this.stream.once('close', () => reject(new Error('the stream ended early')));
    });
  }

  /** Writes, and waits while the other side does not keep up. */
  async write(bytes: Buffer): Promise<void> {
    if (!this.stream.write(bytes)) await once(this.stream, 'drain');
  }

  /** Half-closes, and waits for the status. */
  async end(): Promise<void> {
    this.stream.end();
    this.stream.resume();
    if (!this.stream.closed) await once(this.stream, 'close');
    const status = this.trailers['grpc-status'];
    if (status !== '0')
      throw new Error(`status ${String(status)}: ${String(this.trailers['grpc-message'])}`);
  }
}
