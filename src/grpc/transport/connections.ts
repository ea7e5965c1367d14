import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { CallAborted } from './call.js';
import { Connection, type Keepalive } from './connection.js';
import { type InboundLimits, TotalBudget } from './inbound-budget.js';
import type { ServerTls } from './server-tls.js';

/** A connection is retired up to this part of the greatest age earlier or later, so that not all are at once. */
const AGE_JITTER = 0.1;

/** How often (milliseconds) a connection's certificate is looked at, at least: the clock may be set. */
const EXPIRY_INTERVAL = 60_000;

/** When connections end that have nothing wrong. */
export interface Lifetimes {
  /** In milliseconds; 0 is no limit. */
  readonly maxAge: number;
  /** Called with each connection that has reached it. */
  readonly onOld: (connection: Connection) => void;
  /** Knows the certificates of clients; undefined without TLS. */
  readonly certificates: Pick<ServerTls, 'identityOf' | 'expiryOf'> | undefined;
  /** Called with each connection whose client's certificate has ended. */
  readonly onExpired: (connection: Connection) => void;
}

/** The connections of one server that are not closed yet. One timer closes those that are dead or stuck. */
export class Connections {
  private readonly all = new Map<object, Connection>();
  private timer: NodeJS.Timeout | undefined;
  private readonly total: TotalBudget;
  /** How many connections this server has ended since its start, by the name of the limit that they were over. */
  readonly ended = new Map<string, number>();
  /** Set once all got GOAWAY. Node sends no PINGs then, so a client that is silent is not taken for dead. */
  areEnding = false;

  constructor(
    private readonly keepalive: Keepalive,
    private readonly limits: InboundLimits,
    private readonly lifetimes: Lifetimes,
  ) {
    this.total = new TotalBudget(limits.total, () => this.endLargest());
  }

  /** How many are open. */
  get size(): number {
    return this.all.size;
  }

  add(session: ServerHttp2Session, stream: Duplex): void {
    const { keepalive, limits, total } = this;
    const { maxAge, certificates } = this.lifetimes;
    const socket = session.socket as TLSSocket;
    const identity = certificates?.identityOf(socket);
    const connection = new Connection(
      session,
      stream,
      keepalive,
      limits.connection,
      total,
      identity,
    );
    this.all.set(session, connection);
    session.once('close', () => this.remove(session));
    if (maxAge > 0) this.watchAge(session, connection);
    const expiry = certificates?.expiryOf(socket);
    if (expiry !== undefined) this.watchExpiry(session, connection, expiry);
    this.timer ??= setInterval(() => this.checkLives(), this.checkInterval).unref();
  }

  /** The connection of a stream; undefined once it is closed. */
  of(stream: ServerHttp2Stream): Connection | undefined {
    return stream.session && this.all.get(stream.session);
  }

  /** Closes the connections on which calls are open. */
  closeBusy(): void {
    for (const connection of this.all.values()) if (connection.calls.size > 0) connection.destroy();
  }

  private get checkInterval(): number {
    return Math.min(this.keepalive.time, this.keepalive.timeout) / 8;
  }

  private watchAge(session: ServerHttp2Session, connection: Connection): void {
    const { maxAge, onOld } = this.lifetimes;
    const age = maxAge * (1 + AGE_JITTER * (2 * Math.random() - 1));
    const timer = setTimeout(() => onOld(connection), age).unref();
    session.once('close', () => clearTimeout(timer));
  }

  private watchExpiry(session: ServerHttp2Session, connection: Connection, expiry: number): void {
    let timer: NodeJS.Timeout | undefined;
    const look = (): void => {
      const left = expiry - Date.now();
      if (left <= 0) this.lifetimes.onExpired(connection);
      else timer = setTimeout(look, Math.min(left, EXPIRY_INTERVAL)).unref();
    };
    look();
    session.once('close', () => clearTimeout(timer));
  }

  private remove(session: ServerHttp2Session): void {
    this.all.delete(session);
    if (this.all.size > 0) return;
    clearInterval(this.timer);
    this.timer = undefined;
  }

  private checkLives(): void {
    const now = performance.now();
    const { time, timeout } = this.keepalive;
    for (const connection of this.all.values()) {
      if (connection.checkGone() * this.checkInterval >= time + timeout) connection.destroySocket();
      if (!this.areEnding) connection.checkLife(now);
      if (connection.checkStuck() * this.checkInterval < time + timeout) continue;
      this.end(
        connection,
        this.limits.names.connection,
        `nothing has moved on this connection for ${((time + timeout) / 1000).toFixed(1)} s: its messages fill what ` +
          `${this.limits.names.connection} lets a connection send ahead, and their answers are not read. Read while you send`,
      );
    }
  }

  /** Ends the connections that hold most, until the rest are within the total limit. */
  private endLargest(): void {
    const open = [...this.all.values()].filter(({ endedBecause }) => endedBecause === undefined);
    let held = open.reduce((sum, { inbound }) => sum + inbound.held, 0);
    for (const connection of open.toSorted((a, b) => b.inbound.held - a.inbound.held)) {
      if (held <= this.total.limit) return;
      held -= connection.inbound.held;
      this.end(
        connection,
        this.limits.names.total,
        `this connection holds most (${connection.inbound.held} bytes) of what was sent and not yet taken, which is ` +
          `over ${this.limits.names.total} (${this.total.limit}) in all: send less at a time, or try again later`,
      );
    }
  }

  private end(connection: Connection, limit: string, why: string): void {
    this.ended.set(limit, (this.ended.get(limit) ?? 0) + 1);
    connection.endedBecause = why;
    for (const call of connection.calls)
      call.abortUnread(new CallAborted(status.RESOURCE_EXHAUSTED, why));
    connection.end(why);
  }
}
