import { Injectable } from '@nestjs/common';

/** Calls that ended in one way. */
export interface EndedCalls {
  /** The method's name without its service, such as Watch. */
  readonly method: string;
  /** The door's status, such as UNAVAILABLE. */
  readonly status: string;
  /** FeedError.reason; empty where there is none. */
  readonly reason: string;
  count: number;
}

/** Counts how the calls of all doors ended, since the start. There are as many counts as there are ways to end. */
@Injectable()
export class CallCounts implements Iterable<EndedCalls> {
  private readonly counts = new Map<string, EndedCalls>();

  /** Counts a call that has ended. */
  add(method: string, status: string, reason: string): void {
    const key = `${method} ${status} ${reason}`;
    const known = this.counts.get(key);
    if (known) known.count++;
    else this.counts.set(key, { method, status, reason, count: 1 });
  }

  [Symbol.iterator](): Iterator<EndedCalls> {
    return this.counts.values();
  }
}
