import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** Stands between clients and a service, until it forwards no more: as if the network were gone. */
export class Proxy {
  private readonly sockets: Socket[] = [];
  private readonly portOf = new Map<number, number>();

  private constructor(
    private readonly server: Server,
    private readonly target: { host: string; port: number },
  ) {
    server.on('connection', (socket) => this.forward(socket));
  }

  static async to(address: string): Promise<Proxy> {
    const [host, port] = address.split(':');
    const server = createServer({ noDelay: true });
    const proxy = new Proxy(server, { host, port: Number(port) });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return proxy;
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
    for (const socket of this.sockets) {
      socket.unpipe();
      socket.pause();
    }
  }

  close(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  private forward(near: Socket): void {
    const far = connect({ ...this.target, noDelay: true });
    far.once('connect', () => this.portOf.set(near.remotePort!, far.localPort!));
    for (const socket of [near, far]) socket.on('error', () => {});
    near.pipe(far);
    far.pipe(near);
    this.sockets.push(near, far);
  }
}
