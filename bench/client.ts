// A gRPC client that speaks to node's HTTP/2 directly, so that one write can hold many messages. A benchmark's client
// must not be slower than the service it measures.
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

  /** @param windowBytes the receive window of each stream: the service can send this much before the client reads */
  constructor(address: string, windowBytes = WINDOW_BYTES) {
    this.session = connect(`http://${address}`, {
      settings: { initialWindowSize: windowBytes },
      maxSessionMemory: 1000, // in MB; node ends streams beyond it, and its default is 10
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
   * Opens a watch, and resolves when the response headers have come.
   *
   * @param topic a topic or pattern, or several
   * @param start a field of WatchRequest and its value: [2, cursor] is after_cursor, [5, 100] is last
   */
  async watch(
    topic: string | readonly string[],
    start?: 'earliest' | readonly [field: number, value: string | number],
  ): Promise<Call> {
    const call = this.call('Watch');
    const from = start === 'earliest' ? ([3, 1] as const) : start;
    const topics =
      typeof topic === 'string' ? [[1, topic] as const] : topic.map((one) => [7, one] as const);
    call.stream.end(message(...topics, ...(from ? [from] : [])));
    await once(call.stream, 'response');
    return call;
  }

  /** Resolves when the connection is closed, by whichever side. */
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

  /**
   * Reads and counts the messages that come.
   *
   * @param each is called for each message, with the offset of its frame in `bytes`
   */
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

  /** Resolves when `count` messages have come. Rejects if the stream ends before. */
  async has(count: number): Promise<void> {
    if (this.count >= count) return;
    await new Promise<void>((resolve, reject) => {
      this.waiting = { count, resolve };
      this.stream.once('close', () => reject(new Error('the stream ended early')));
    });
  }

  /** Writes, and waits while the service does not keep up. */
  async write(bytes: Buffer): Promise<void> {
    if (!this.stream.write(bytes)) await once(this.stream, 'drain');
  }

  /** Half-closes the stream, and waits for its status. Rejects if that is not OK. */
  async end(): Promise<void> {
    this.stream.end();
    this.stream.resume();
    if (!this.stream.closed) await once(this.stream, 'close');
    const status = this.trailers['grpc-status'];
    if (status !== '0')
      throw new Error(`status ${String(status)}: ${String(this.trailers['grpc-message'])}`);
  }
}
