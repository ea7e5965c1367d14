import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/** A connection of a client, and the proxy's own to the server. */
type Pair = readonly [client: Socket, server: Socket];

/** A TCP proxy that disturbs the connections that go through it. */
export class FaultProxy {
  /** How often it did something to a connection. */
  faults = 0;
  private readonly pairs = new Set<Pair>();
  /** The proxy's sockets to the server, also those of former pairs. */
  private readonly serverSockets: Socket[] = [];
  /** The end of each pair's last stall. */
  private readonly stalls = new WeakMap<Pair, NodeJS.Timeout>();

  private constructor(
    private readonly server: Server,
    private readonly target: () => string,
  ) {
    server.on('connection', (client) => this.join(client));
  }

  /** Listens on a free port. `target` returns the address, host:port, to connect to at the moment. */
  static async start(target: () => string): Promise<FaultProxy> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const proxy = new FaultProxy(server, target);
    onTestFinished(() => proxy.close());
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Bytes that came for clients. Not counted by a listener: that would have a stalled socket go on, and lose what it reads. */
  get toClientBytes(): number {
    return this.serverSockets.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
  }

  get connections(): number {
    return this.pairs.size;
  }

  /** Does one thing to one connection, both chosen by `random`; see below for what. */
  disturb(random: (below: number) => number): void {
    const pair = [...this.pairs][random(Math.max(1, this.pairs.size))];
    if (!pair) return;
    this.faults++;
    const which = random(4);
    if (which === 0) this.cut(pair);
    else if (which === 1) this.stall(pair, 100 + random(2_000));
    // Half-closes: one side is told that the other sends no more.
    else pair[which - 2].end();
  }

  /** Cuts all connections, without a word of HTTP/2. */
  cutAll(): void {
    for (const pair of this.pairs) this.cut(pair);
  }

  /** Passes nothing on, in any connection of now, and tells nobody. */
  freezeAll(): void {
    for (const [client, server] of this.pairs) {
      client.unpipe(server);
      server.unpipe(client);
      client.pause();
      server.pause();
    }
  }

  close(): void {
    this.cutAll();
    this.server.close();
  }

  private join(client: Socket): void {
    const [host, port] = this.target().split(':');
    const server = connect({ host, port: Number(port), allowHalfOpen: true });
    const pair: Pair = [client, server];
    this.pairs.add(pair);
    client.pipe(server);
    server.pipe(client);
    this.serverSockets.push(server);
    for (const [from, to] of [pair, [server, client]]) {
      from.on('error', () => this.cut(pair));
      from.on('close', () => {
        this.pairs.delete(pair);
        // destroySoon() waits until all that came is written.
        to.destroySoon();
      });
    }
  }

  private cut(pair: Pair): void {
    this.pairs.delete(pair);
    for (const socket of pair) socket.destroy();
  }

  private stall(pair: Pair, milliseconds: number): void {
    const [client, server] = pair;
    client.unpipe(server);
    server.unpipe(client);
    // Two pipes from one socket to another would pass on each byte twice.
    clearTimeout(this.stalls.get(pair));
    const timer = setTimeout(() => {
      client.pipe(server);
      server.pipe(client);
    }, milliseconds);
    this.stalls.set(pair, timer);
  }
}
