import type { Socket } from 'node:net';
import type { Config } from '../config/config.js';
import { moveCalls } from '../feed/move.js';
import type { LiveCalls } from '../feed/live-calls.js';
import type { HttpCall } from './http-call.js';

/** The age at which a connection moves differs by up to this part, so that not all move at once. */
const AGE_JITTER = 0.1;

/** Moves clients whose connections are older than FEED_MAX_CONNECTION_AGE. */
export class ConnectionAges {
  /** When each connection moves, in milliseconds of performance.now(). A connection is known from its first call on. */
  private readonly movesAt = new WeakMap<Socket, number>();

  constructor(
    private readonly config: Config,
    private readonly calls: LiveCalls,
  ) {}

  /** When its connection moves, ends the call if it is a stream, and has the connection close after an answer that has not begun. */
  follow(call: HttpCall): void {
    const { maxConnectionAge: age } = this.config;
    if (age === 0) return;
    const { socket } = call.request;
    const known = this.movesAt.get(socket);
    const at = known ?? performance.now() + age * (1 + AGE_JITTER * (2 * Math.random() - 1));
    this.movesAt.set(socket, at);
    const left = at - performance.now();
    if (left <= 0) askToClose(call);
    const timer = setTimeout(() => this.move(call), Math.max(0, left)).unref();
    call.response.once('close', () => clearTimeout(timer));
  }

  private move(call: HttpCall): void {
    askToClose(call);
    if (call.isStream) void moveCalls(this.calls, [call], this.config.maxConnectionAgeGrace);
  }
}

/** A client that sends one short request after another has no open call that could end: the answer tells it to connect anew. */
function askToClose({ response }: HttpCall): void {
  if (!response.headersSent) response.setHeader('connection', 'close');
}
