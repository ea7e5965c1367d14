import { FeedError } from './errors.js';
import { LimitHits } from './limit-hits.js';
import type { LiveCall, LiveCalls } from './live-calls.js';

export type CallKind = 'watches' | 'uploads' | 'chats';

/** How many calls of one kind may be open at a time. */
export interface CallLimit {
  readonly inAll: number;
  readonly perConnection: number;
  /** The calls of one principal over all its connections. There is no such limit where the service asks nobody who they are. */
  readonly perPrincipal: number;
}

interface Counter {
  open: number;
}

/**
 * Limits how many calls are open at a time: in all, of a connection and of a principal, so that one client does not take the
 * place of all others.
 */
export class CallLimits {
  private readonly counters = new Map<string, Counter>();
  /** Those in which an open call is counted. */
  private readonly claims = new WeakMap<LiveCall, readonly string[]>();

  constructor(
    private readonly limits: Readonly<Record<CallKind, CallLimit>>,
    private readonly calls: LiveCalls,
    private readonly hits = new LimitHits(),
  ) {
    calls.onGone((call) => this.release(call));
  }

  /**
   * Counts a call from now until its end.
   *
   * @throws FeedError LIMIT_EXCEEDED, which names the limit
   */
  claim(kind: CallKind, call: LiveCall): void {
    // Its client may have gone while a guard found out who it is. Nothing would give its place back.
    if (!this.calls.has(call)) return;
    const { inAll, perConnection, perPrincipal } = this.limits[kind];
    const name = `FEED_MAX_${kind.toUpperCase()}`;
    const { principal } = call.notes;
    this.check(name, inAll, kind, kind, 'in all');
    this.check(
      `${name}_PER_CONNECTION`,
      perConnection,
      kind,
      `${kind} of ${call.peer}`,
      'on this connection',
    );
    const keys = [kind, `${kind} of ${call.peer}`];
    if (principal !== undefined) {
      const key = `${kind} of principal ${principal}`;
      this.check(`${name}_PER_PRINCIPAL`, perPrincipal, kind, key, `of "${principal}"`);
      keys.push(key);
    }
    for (const key of keys) {
      const counter = this.counters.get(key) ?? { open: 0 };
      counter.open++;
      this.counters.set(key, counter);
    }
    this.claims.set(call, keys);
  }

  private check(limit: string, most: number, kind: CallKind, key: string, where: string): void {
    if ((this.counters.get(key)?.open ?? 0) < most) return;
    this.hits.add(limit);
    throw limitExceeded(limit, most, `${most} ${kind} are open ${where}`);
  }

  private release(call: LiveCall): void {
    for (const key of this.claims.get(call) ?? []) {
      const counter = this.counters.get(key)!;
      if (--counter.open === 0) this.counters.delete(key);
    }
  }
}

/** Returns the error of what would be over a limit, which has the name of a setting. */
export function limitExceeded(limit: string, most: number, what: string): FeedError {
  const message = `${what}, and ${limit} allows no more: end some, or try again later`;
  return new FeedError('LIMIT_EXCEEDED', message, { limit, most: String(most) });
}
