// A link between clients and a service that is slow, long, or gone.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export interface LinkOptions {
  /** In each direction, of each connection; without it, all that comes passes at once. */
  readonly bytesPerSecond?: number;
  /** How long (milliseconds) each byte is on its way, in each direction. */
  readonly delay?: number;
  /** Bytes that may be on their way in each direction of a connection, before the sender has to wait. */
  readonly bufferBytes?: number;
}

/** More than any window that is measured. */
const NO_LIMIT = 64 * 2 ** 20;
/** A slow link passes something at least this often (milliseconds). */
const PART_TIME = 20;

/** Forwards TCP connections to a service as a link with these properties would. */
export class Link {
  private readonly sockets = new Set<Socket>();
  private readonly portOf = new Map<number, number>();
  private readonly server: Server;
  private readonly target: { host: string; port: number };
  private readonly options: LinkOptions;
  /** In each direction, of each connection: it may change. */
  bytesPerSecond: number;
  private isCut = false;

  // Node runs this file as it is, and takes no parameter properties.
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

  /** Where the service sees a client's connection come from. */
  portSeen(clientPort: number): number {
    return this.portOf.get(clientPort)!;
  }

  /** From now on, what is sent on either side goes nowhere, and nobody is told. */
  cut(): void {
    this.isCut = true;
    for (const socket of this.sockets) socket.pause();
  }

  /** Ends all connections, and takes no more. */
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
    const { bufferBytes = this.bytesPerSecond === Infinity ? NO_LIMIT : 32 * 1024 } = this.options;
    const parts: Buffer[] = [];
    let heldBytes = 0;
    let freeAt = 0;
    const arrive = (): void => {
      if (this.isCut) return;
      const part = parts.shift()!;
      to.write(part);
      heldBytes -= part.length;
      if (heldBytes <= bufferBytes) from.resume();
    };
    this.sockets.add(from);
    from.on('data', (bytes: Buffer) => {
      const now = performance.now();
      const { bytesPerSecond } = this;
      const partBytes = Math.ceil((bytesPerSecond * PART_TIME) / 1000);
      for (let at = 0; at < bytes.length; at += partBytes) {
        const part = bytes.subarray(at, Math.min(bytes.length, at + partBytes));
        parts.push(part);
        freeAt = Math.max(now, freeAt) + (1000 * part.length) / bytesPerSecond;
        setTimeout(arrive, freeAt + delay - now);
      }
      heldBytes += bytes.length;
      if (heldBytes > bufferBytes) from.pause();
    });
    const afterParts = (act: () => void): void => {
      const now = performance.now();
      setTimeout(() => !this.isCut && act(), Math.max(0, freeAt - now) + delay);
    };
    from.on('end', () => afterParts(() => to.end()));
    from.on('error', () => {});
    from.on('close', () => {
      this.sockets.delete(from);
      afterParts(() => to.destroy());
    });
  }
}
