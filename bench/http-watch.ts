import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** The bytes before the data of each event. They stand nowhere else, because JSON in one line has no line feed. */
const EVENT = Buffer.from('\ndata: ');

/** A watch over HTTP, as Server-Sent Events, whose events are counted and not parsed. */
export class HttpWatch {
  private count = 0;
  private carried: Buffer = Buffer.alloc(0);
  private wanted = Infinity;
  private onDone: () => void = () => {};

  private readonly socket: Socket;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.take(chunk));
  }

  /** Resolves when the watch has begun. */
  static async open(address: string, query: string): Promise<HttpWatch> {
    const [host, port] = address.split(':');
    const socket = connect({ host, port: Number(port) });
    socket.write(`GET /v1/events?${query} HTTP/1.1\r\nhost: ${address}\r\n\r\n`);
    const watch = new HttpWatch(socket);
    await once(socket, 'data');
    return watch;
  }

  /** Resolves once `count` events have come. */
  async has(count: number): Promise<void> {
    this.wanted = count;
    if (this.count < count) await new Promise<void>((resolve) => (this.onDone = resolve));
    this.socket.destroy();
  }

  private take(chunk: Buffer): void {
    // An event's beginning may be cut by the end of a chunk.
    const bytes = this.carried.length > 0 ? Buffer.concat([this.carried, chunk]) : chunk;
    for (let at = bytes.indexOf(EVENT); at >= 0; at = bytes.indexOf(EVENT, at + 1)) this.count++;
    this.carried = bytes.subarray(Math.max(0, bytes.length - EVENT.length + 1));
    if (this.count >= this.wanted) this.onDone();
  }
}
