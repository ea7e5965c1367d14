import type { Socket } from 'node:net';
import type { Config } from '../config/config.js';
import { moveCalls } from '../feed/move.js';
import type { LiveCalls } from '../feed/live-calls.js';
import type { HttpCall } from './http-call.js';

/** The age at which a connection moves differs by up to this part, so that not all move at once. */
const AGE_JITTER = 0.1;

/** Moves calls on connections that are older than FEED_MAX_CONNECTION_AGE. */
export class ConnectionAges {
  /** When each connection moves, in milliseconds of performance.now(). A connection is known from its first call on. */
  private readonly movesAt = new WeakMap<Socket, number>();

  constructor(
    private readonly config: Config,
    private readonly calls: LiveCalls,
  ) {}

  /** Ends the call when its connection moves, if it is still open then. */
  follow(call: HttpCall): void {
    const { maxConnectionAge: age, maxConnectionAgeGrace: grace } = this.config;
    if (age === 0 || !call.isStream) return;
    const { socket } = call.request;
    const known = this.movesAt.get(socket);
    const at = known ?? performance.now() + age * (1 + AGE_JITTER * (2 * Math.random() - 1));
    this.movesAt.set(socket, at);
    const timer = setTimeout(
      () => void moveCalls(this.calls, [call], grace),
      Math.max(0, at - performance.now()),
    ).unref();
    call.response.once('close', () => clearTimeout(timer));
  }
}
