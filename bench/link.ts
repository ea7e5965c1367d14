// A proxy that stands for a network link between clients and a service. It can be slow, delay all bytes, or go dead.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export interface LinkOptions {
  /** The rate of each direction of each connection. Without it, the rate has no limit. */
  readonly bytesPerSecond?: number;
  /** How long (milliseconds) each byte takes, in each direction. */
  readonly delay?: number;
  /** How many bytes each direction of a connection holds before its sender has to wait. */
  readonly bufferBytes?: number;
}

/** The buffer of a link without a rate. It is larger than any window that a benchmark measures. */
const UNLIMITED_BUFFER = 64 * 2 ** 20;
/** A slow link cuts bytes into parts that take this long (milliseconds), and passes them on one by one. */
const PART_TIME = 20;

/** Forwards TCP connections to a service, with the properties of a LinkOptions. */
export class Link {
  private readonly sockets = new Set<Socket>();
  private readonly portOf = new Map<number, number>();
  private readonly server: Server;
  private readonly target: { host: string; port: number };
  private readonly options: LinkOptions;
  /** The rate of each direction of each connection. A test may change it at any time. */
  bytesPerSecond: number;
  private isCut = false;

  // The parameters are not parameter properties, because node runs this file without compiling it and refuses them.
  private constructor(
    server: Server,
    target: { host: string; port: number },
    options: LinkOptions,
  ) {
    this.server = server;
    this.target = target;
    this.options = options;
    this.bytesPerSecond = options.bytesPerSecond ?? Infinity;
    server.on('connection', (socket) => this.forward(socket));
  }

  static async to(address: string, options: LinkOptions = {}): Promise<Link> {
    const { hostname, port } = new URL(`http://${address}`);
    const server = createServer({ noDelay: true, allowHalfOpen: true });
    const link = new Link(server, { host: hostname, port: Number(port) }, options);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return link;
  }

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Returns the port from which the service sees the connection that a client opened from its port `clientPort`. */
  portSeen(clientPort: number): number {
    return this.portOf.get(clientPort)!;
  }

  /** Makes the link dead: from now on it drops what either side sends, and neither side learns of it. */
  cut(): void {
    this.isCut = true;
    for (const socket of this.sockets) socket.pause();
  }

  /** Closes all connections, and accepts no more. */
  close(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  private forward(near: Socket): void {
    const far = connect({ ...this.target, noDelay: true, allowHalfOpen: true });
    far.once('connect', () => this.portOf.set(near.remotePort!, far.localPort!));
    this.carry(near, far);
    this.carry(far, near);
  }

  private carry(from: Socket, to: Socket): void {
    const { delay = 0 } = this.options;
    const { bufferBytes = this.bytesPerSecond === Infinity ? UNLIMITED_BUFFER : 32 * 1024 } =
      this.options;
    // In order: the event loop's time differs from performance.now(), so the timer of an end may fire before that of the last part.
    const arrivals: (() => void)[] = [];
    const arriveIn = (milliseconds: number, act: () => void): void => {
      arrivals.push(act);
      setTimeout(() => !this.isCut && arrivals.shift()!(), milliseconds);
    };
    let heldBytes = 0;
    /** The time at which the link has passed on all parts so far, without the delay. */
    let freeAt = 0;
    this.sockets.add(from);
    from.on('data', (bytes: Buffer) => {
      const now = performance.now();
      const { bytesPerSecond } = this;
      const partBytes = Math.ceil((bytesPerSecond * PART_TIME) / 1000);
      for (let at = 0; at < bytes.length; at += partBytes) {
        const part = bytes.subarray(at, Math.min(bytes.length, at + partBytes));
        freeAt = Math.max(now, freeAt) + (1000 * part.length) / bytesPerSecond;
        arriveIn(freeAt + delay - now, () => {
          to.write(part);
          heldBytes -= part.length;
          if (heldBytes <= bufferBytes) from.resume();
        });
      }
      heldBytes += bytes.length;
      if (heldBytes > bufferBytes) from.pause();
    });
    const afterParts = (act: () => void): void =>
      arriveIn(Math.max(0, freeAt - performance.now()) + delay, act);
    from.on('end', () => afterParts(() => to.end()));
    from.on('error', () => {});
    from.on('close', (hasFailed) => {
      this.sockets.delete(from);
      // Where the connection did not break, destroySoon() waits until what came is written.
      afterParts(() => (hasFailed ? to.destroy() : to.destroySoon()));
    });
  }
}
