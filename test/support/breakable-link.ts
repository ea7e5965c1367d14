import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Changes what comes back from the target on a connection. It is called with the bytes as they come, in order. */
export type Filter = (bytes: Buffer) => Buffer;

/**
 * A TCP proxy that stands for a network link, which a test breaks and mends:
 *
 * - open: bytes pass, each read of them `delay` milliseconds later than it came.
 * - hung: nothing passes, not even the end of a connection, and nobody is told. New connections hang, too.
 * - cut: connections are reset, and new ones as well.
 */
export class BreakableLink {
  /** How long (milliseconds) the link takes for what it reads. It reads nothing more until then, so it is slow, too. */
  delay = 0;
  private readonly sockets = new Set<Socket>();
  private isCut = false;
  /** Resolves once the link hangs no more; undefined while it does not hang. */
  private hanging: PromiseWithResolvers<void> | undefined;

  private constructor(
    private readonly server: Server,
    private readonly target: { readonly host: string; readonly port: number },
    private readonly newFilter: () => Filter,
  ) {
    server.on('connection', (near) => this.join(near));
  }

  /**
   * Listens on a free port.
   *
   * @param address host:port of the target
   * @param newFilter is called for each connection
   */
  static async to(
    address: string,
    newFilter: () => Filter = () => (bytes) => bytes,
  ): Promise<BreakableLink> {
    const { hostname: host, port } = new URL(`tcp://${address}`);
    const server = createServer({ noDelay: true });
    const link = new BreakableLink(server, { host, port: Number(port) }, newFilter);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return link;
  }

  /** host:port of this end. */
  get address(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  hang(): void {
    this.hanging ??= Promise.withResolvers();
  }

  cut(): void {
    this.isCut = true;
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  mend(): void {
    this.isCut = false;
    this.delay = 0;
    this.hanging?.resolve();
    this.hanging = undefined;
  }

  close(): void {
    this.mend();
    this.cut();
    this.server.close();
  }

  private join(near: Socket): void {
    if (this.isCut) return void near.resetAndDestroy();
    const far = connect({ ...this.target, noDelay: true });
    void this.carry(near, far);
    void this.carry(far, near, this.newFilter());
  }

  private async carry(from: Socket, to: Socket, filter?: Filter): Promise<void> {
    this.sockets.add(from);
    from.on('error', () => {});
    // A socket that was destroyed takes no more, and nobody waits for it then.
    const gone = new Promise((resolve) => to.once('close', resolve));
    try {
      for await (const bytes of from as AsyncIterable<Buffer>) {
        await this.hanging?.promise;
        if (this.delay > 0) await sleep(this.delay);
        const passed = filter ? filter(bytes) : bytes;
        if (!to.write(passed)) await Promise.race([once(to, 'drain'), gone]);
      }
      this.sockets.delete(from);
      await this.hanging?.promise;
      // It ends once what was written to it has left.
      to.end();
    } catch {
      // The connection broke. So does the other half of it.
      this.sockets.delete(from);
      await this.hanging?.promise;
      to.destroy();
    }
  }
}

/**
 * Returns a filter that leaves out answers of JetStream to publishes, each for which `isDropped` returns true. The publisher
 * then does not know whether its message is stored.
 *
 * A NATS server sends lines, and behind those that begin with MSG or HMSG a payload of as many bytes as the line's last word
 * says: `MSG _INBOX.a.1 1 26\r\n{"stream":"FEED","seq":7}\r\n`.
 */
export function withoutAnswers(isDropped: () => boolean): Filter {
  let rest: Buffer = Buffer.alloc(0);
  return (bytes) => {
    rest = rest.length > 0 ? Buffer.concat([rest, bytes]) : bytes;
    const passed: Buffer[] = [];
    for (;;) {
      const end = rest.indexOf('\r\n');
      if (end < 0) break;
      const line = rest.toString('latin1', 0, end);
      const payload = /^H?MSG /.test(line) ? Number(line.split(' ').at(-1)) + 2 : 0;
      const length = end + 2 + payload;
      if (rest.length < length) break;
      const message = rest.subarray(0, length);
      const isAnswer = payload > 0 && ANSWER.test(message.toString('latin1', end + 2, end + 100));
      if (!isAnswer || !isDropped()) passed.push(message);
      rest = rest.subarray(length);
    }
    return Buffer.concat(passed);
  };
}

/** The beginning of an answer that a message is stored. */
const ANSWER = /^\{"stream": ?"[^"]*", ?"seq": ?\d/;
