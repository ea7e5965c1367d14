import { now } from '../clock.js';
import { FeedError, hasMoved } from '../errors.js';
import { type Address, resolve } from './addresses.js';
import { Call, type CallObserver } from './call.js';
import { Connection, type ConnectionOptions, type Endpoint, formatAddress } from './connection.js';

/** A server that failed or drains is tried last for this many milliseconds. */
const AVOID_FOR = 10_000;

/** Names are looked up again when a call begins this many milliseconds after the last lookup. */
const RESOLVED_FOR = 10_000;

interface Server {
  readonly endpoint: Endpoint;
  connection?: Connection;
  /** A connection that is being opened. */
  opening?: Promise<Connection>;
  /** Date.now() until which the server is tried last. */
  avoidedUntil: number;
}

/**
 * The servers of a client: one connection to each, opened when a call needs it, and another when a server takes no more
 * calls on it. Calls take turns over the servers.
 */
export class Servers {
  /** The servers by `host:port`, so that they keep their connections over lookups. */
  private readonly known = new Map<string, Server>();
  /** The servers in the order of the addresses, as of the last lookup. */
  private current: Server[] = [];
  private resolvedAt = -Infinity;
  private turn = Math.floor(Math.random() * 1_000); // Clients that start together do not all take the first server.
  private readonly closing = new AbortController();
  private readonly resolved = new Map<Address, Endpoint[]>();
  private refreshing: Promise<void> | undefined;
  /** All open connections, also those to servers that DNS no longer names. */
  private readonly connections = new Set<Connection>();

  constructor(
    private readonly addresses: readonly Address[],
    private readonly options: ConnectionOptions,
  ) {}

  /** Returns the servers that the addresses name now, each as `host:port`. */
  async addressesNow(): Promise<string[]> {
    await this.lookUp();
    return this.current.map(({ endpoint }) => formatAddress(endpoint.host, endpoint.port));
  }

  /**
   * Starts a call, such as `/feed.v1.FeedService/Watch`, on the next server that can be reached.
   *
   * @param only one of addressesNow(): the call is made to that server alone
   * @throws FeedError UNAVAILABLE if no server can be reached, CANCELLED if the client is closed
   */
  async call(
    path: string,
    headers: Readonly<Record<string, string>>,
    observer?: CallObserver,
    only?: string,
  ): Promise<Call> {
    let { server, connection } = await this.connect(only);
    // Many calls may have waited for the same connection.
    while (connection.isFull) ({ server, connection } = await this.connect(only));
    const stream = connection.request(path, headers);
    const onEnd = (error: FeedError | undefined): void => {
      if (!error) return;
      if (error.reason === 'DRAINING' || connection.failure) this.avoid(server);
      // A server that moves a connection is as good as the others, and DNS may name one that came later.
      else if (hasMoved(error)) this.resolvedAt = -Infinity;
    };
    return new Call(stream, connection, onEnd, observer);
  }

  /** Closes all connections. Open calls end with CANCELLED. */
  close(): void {
    this.closing.abort();
    for (const connection of this.connections) connection.close();
  }

  private async connect(only?: string): Promise<{ server: Server; connection: Connection }> {
    await this.lookUp();
    const failures: FeedError[] = [];
    for (const server of only === undefined ? this.inOrder() : this.named(only)) {
      if (this.closing.signal.aborted) throw new FeedError('CANCELLED', 'the client was closed');
      try {
        return { server, connection: await this.open(server) };
      } catch (error) {
        // A certificate or key that can't be read, for example: no server and no attempt would mend that.
        if (!(error instanceof FeedError)) throw error;
        this.avoid(server);
        failures.push(error);
      }
    }
    if (failures.length === 1) throw failures[0];
    const message = `no server can be reached: ${failures.map((one) => one.message).join('; ')}`;
    throw new FeedError('UNAVAILABLE', message, { cause: failures[0] });
  }

  private named(address: string): Server[] {
    const server = this.known.get(address);
    if (server) return [server];
    throw new FeedError('UNAVAILABLE', `${address} is no server of this client any more`);
  }

  /** Returns the servers in the order in which to try them: another one first each time, and those to avoid last. */
  private inOrder(): Server[] {
    const first = this.turn++ % this.current.length;
    const servers = [...this.current.slice(first), ...this.current.slice(0, first)];
    const isAvoided = ({ avoidedUntil }: Server): boolean => avoidedUntil > now();
    return [...servers.filter((one) => !isAvoided(one)), ...servers.filter(isAvoided)];
  }

  /** Resolves with the server's connection. Calls that begin while it is being opened share it. */
  private open(server: Server): Promise<Connection> {
    if (server.connection?.isFull) server.connection.retire();
    if (server.connection?.isUsable) return Promise.resolve(server.connection);
    server.opening ??= Connection.open(server.endpoint, this.options, this.closing.signal)
      .then((connection) => {
        this.connections.add(connection);
        connection.onClose(() => this.connections.delete(connection));
        if (this.closing.signal.aborted) connection.close();
        server.connection = connection;
        server.avoidedUntil = 0;
        return connection;
      })
      .finally(() => (server.opening = undefined));
    return server.opening;
  }

  private avoid(server: Server): void {
    server.avoidedUntil = now() + AVOID_FOR;
    this.resolvedAt = -Infinity; // DNS may name its successor.
  }

  /** Looks the names up again if it is time to. */
  private async lookUp(): Promise<void> {
    if (now() - this.resolvedAt < RESOLVED_FOR) return;
    // Calls that begin meanwhile wait for the same answer.
    this.refreshing ??= this.refresh().finally(() => (this.refreshing = undefined));
    await this.refreshing;
  }

  private async refresh(): Promise<void> {
    const endpoints = await resolve(this.addresses, this.resolved);
    this.current = endpoints.map((endpoint) => {
      const key = formatAddress(endpoint.host, endpoint.port);
      const server = this.known.get(key) ?? { endpoint, avoidedUntil: 0 };
      this.known.set(key, server);
      return server;
    });
    for (const [key, server] of this.known) {
      if (this.current.includes(server)) continue;
      this.known.delete(key);
      server.connection?.retire(); // DNS no longer names this server.
    }
    this.resolvedAt = now();
  }
}
