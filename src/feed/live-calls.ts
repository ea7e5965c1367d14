import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { MAX_TOPIC_BYTES } from '../wire/topic.js';

/** The record of a call that its use case keeps: topic, events and bytes. */
export interface CallRecord {
  /**
   * `topic`: that of a watch (or its first one), of an upload's first event, or of a request of FeedAdmin, or a chat's first room.
   * `topics`: all topics and patterns of a watch, if it has more than one. `principal`: the caller, if the service asks who
   * calls. `traceId`: the trace of the caller, or of the call, if there is one.
   */
  readonly notes: {
    topic?: string;
    topics?: readonly string[];
    principal?: string;
    traceId?: string;
  };
  /** How many events or messages were received and sent, and their bytes. */
  events: number;
  bytes: number;
  /** If the call is traced: called at its milestones, such as `caught up`. */
  readonly onMilestone?: (name: string) => void;
}

/** An open call of any door: what metrics and administrators read, and a way to end it. */
export interface LiveCall extends Readonly<CallRecord> {
  /** Such as /feed.v1.FeedService/Watch. */
  readonly method: string;
  /** The client's address. */
  readonly peer: string;
  /** When it began, in milliseconds of performance.now(). */
  readonly startedAt: number;
  /** What UploadCall says of an upload; 0 for other calls. */
  readonly pending: number;
  /** When its client last sent something, in milliseconds of performance.now(). */
  readonly receivedAt: number;
  /** True for a watch or a chat, and over gRPC for each call whose response is a stream. */
  readonly endless: boolean;
  /** False for a call of one request and one answer, which is too short to be looked at or ended. */
  readonly isStream: boolean;
  /** Aborts once the call ends before its handler is done; its reason says why. */
  readonly signal: AbortSignal;
  /** Ends the call with the reason, unless it was aborted before or its handler is done. */
  abort(reason: Error): void;
}

/** Notes the topic that a request names. That of a request that will be refused may be of any length. */
export function noteTopic({ notes }: CallRecord, topic: string): void {
  notes.topic = topic.slice(0, MAX_TOPIC_BYTES);
}

/** Returns what the log has of a call's notes: of many topics their number. */
export function loggedNotes({ topics, ...notes }: CallRecord['notes']): object {
  return { ...notes, ...(topics && { topics: topics.length }) };
}

/** Returns the name of a method without its service, such as `Watch`. */
export const methodName = (method: string): string => method.slice(method.lastIndexOf('/') + 1);

/** An upload is idle once it has waited for its client for this long (milliseconds), and nothing has come. */
const IDLE_AFTER = 1_000;
/** How often (milliseconds) a drain looks for idle uploads. */
const IDLE_CHECK = 100;

function isIdle({ pending, receivedAt }: LiveCall): boolean {
  return pending === 0 && performance.now() - receivedAt >= IDLE_AFTER;
}

/**
 * Calls back once node has read what has come to the sockets, and the doors have noted that in `receivedAt`. The first immediate runs
 * after node's reads. gRPC's door notes them in an immediate of its own (InboundFrames), which the second one follows.
 */
export function afterReads(callback: () => void): void {
  setImmediate(() => setImmediate(callback));
}

/** The open calls of all doors. A door adds a call when it begins, and deletes it when its client has the answer or is gone. */
@Injectable()
export class LiveCalls implements Iterable<LiveCall> {
  /** The open calls in the order in which they began, and the number of each. */
  private readonly open = new Map<LiveCall, number>();
  private begun = 0;
  private readonly listeners = new Set<(gone: LiveCall) => void>();

  add(call: LiveCall): void {
    this.open.set(call, ++this.begun);
  }

  delete(call: LiveCall): void {
    this.open.delete(call);
    for (const listener of this.listeners) listener(call);
  }

  [Symbol.iterator](): Iterator<LiveCall> {
    return this.open.keys();
  }

  /** Yields the calls that are open now with their numbers, in the order in which they began. It may be read slowly. */
  *numbered(): Iterable<readonly [LiveCall, number]> {
    const newest = this.begun;
    for (const entry of this.open) {
      if (entry[1] > newest) return;
      yield entry;
    }
  }

  /** Returns true until the call is deleted. */
  has(call: LiveCall): boolean {
    return this.open.has(call);
  }

  /** Calls `listener` with each call that is no longer open. */
  onGone(listener: (gone: LiveCall) => void): void {
    this.listeners.add(listener);
  }

  /** Resolves when none of these calls is open any more, or after `timeout` milliseconds. */
  async ended(calls: readonly LiveCall[], timeout: number): Promise<void> {
    const left = new Set(calls.filter((call) => this.open.has(call)));
    if (left.size === 0) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.listeners.delete(listener);
        resolve();
      };
      const listener = (gone: LiveCall): void => {
        if (left.delete(gone) && left.size === 0) end();
      };
      const timer = setTimeout(end, timeout);
      this.listeners.add(listener);
    });
  }

  /** Waits up to `timeout` milliseconds for these calls to end by themselves, and aborts those that have not. */
  async endWithin(calls: readonly LiveCall[], timeout: number, reason: Error): Promise<void> {
    await this.ended(calls, timeout);
    for (const call of calls) call.abort(reason);
  }

  /**
   * Waits up to `timeout` milliseconds for these uploads to end by themselves. Aborts each one as soon as it is idle, and at the
   * end those that are still open. An upload that is idle has no event that is not stored, so it is told exactly what is.
   *
   * No upload is ended before its door has looked at the socket once more: if this process stood still, the client's bytes may be
   * there and not yet read.
   */
  async endUploads(uploads: readonly LiveCall[], timeout: number, reason: Error): Promise<void> {
    const endIdle = (): void => {
      const idle = uploads.filter(isIdle);
      if (idle.length === 0) return;
      afterReads(() => {
        for (const call of idle) if (isIdle(call)) call.abort(reason);
      });
    };
    endIdle();
    const timer = setInterval(endIdle, IDLE_CHECK);
    await this.endWithin(uploads, timeout, reason);
    clearInterval(timer);
  }

  /**
   * Aborts these calls one after another within `spread` milliseconds, so that their clients do not all come to another server
   * at the same moment. Each has an equal share of that time, and is aborted at a random moment of it: else a single call would always
   * be aborted at once.
   */
  async endSpread(calls: readonly LiveCall[], spread: number, reason: Error): Promise<void> {
    const start = performance.now();
    for (const [i, call] of calls.entries()) {
      const wait = start + ((i + Math.random()) / calls.length) * spread - performance.now();
      if (wait > 0 && this.open.has(call)) await sleep(wait);
      call.abort(reason);
    }
  }
}
