import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';
import { PATIENCE } from '../repository/promptly.js';
import { LOG } from '../telemetry/log.js';
import { type Administrator, mayAdminister, requireAdministrator } from './administrator.js';
import { endedByOperator, FeedError } from './errors.js';
import { type CallRecord, type LiveCall, LiveCalls } from './live-calls.js';
import { ReplicaName } from './replica-name.js';
import { type Watch, Watches } from './watch.js';

/** An open call as an operator sees it. */
export interface StreamView {
  /** Such as `3f9c2a-17`: the replica's token, and the call's number. */
  readonly id: string;
  /** Such as /feed.v1.FeedService/Watch. */
  readonly method: string;
  readonly principal: string | undefined;
  readonly peer: string;
  readonly topics: readonly string[];
  /** In milliseconds of Date.now(). */
  readonly startedAt: number;
  readonly events: number;
  readonly bytes: number;
  /**
   * Only of a watch: how many events are stored and not sent yet. Undefined where its topics are too many to be counted, or where
   * the store does not answer promptly.
   */
  readonly behind: number | undefined;
}

/** This many calls are looked up at a time. */
const PART = 50;

/** Shows operators the open calls of this process, and ends them. It keeps nothing: all that it says is in the calls. */
@Injectable()
export class Streams {
  constructor(
    private readonly calls: LiveCalls,
    private readonly watches: Watches,
    private readonly replica: ReplicaName,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  /**
   * Yields the open calls that the administrator may see, the oldest first, a part at a time. It costs a look at each open call
   * and at each watch, and a few searches for each topic, up to 100, of a watch that it yields and that is behind. Once the store
   * has kept a part waiting, it is not asked about the watches of the next ones: each part would wait as long.
   *
   * @param own the call that asks, which is left out
   * @throws FeedError
   */
  async *list(administrator: Administrator, own?: LiveCall): AsyncGenerator<StreamView[]> {
    requireAdministrator(administrator);
    let watches = this.watchesByCall();
    let part: Promise<StreamView>[] = [];
    let askedAt = performance.now();
    for (const [call, number] of this.calls.numbered()) {
      if (call === own || !call.isStream) continue;
      if (!maySee(administrator, call)) continue;
      part.push(this.view(number, call, watches.get(call)));
      if (part.length < PART) continue;
      const views = await Promise.all(part);
      if (performance.now() - askedAt >= PATIENCE) watches = new Map();
      yield views;
      part = [];
      askedAt = performance.now();
    }
    if (part.length > 0) yield await Promise.all(part);
  }

  /**
   * Ends an open call at once, whose client gets ENDED_BY_OPERATOR. Resolves with what the call was. A call that the administrator
   * may not see is treated as one that is not there: a refusal of its own would name its topic. So is one that has ended already
   * and only waits for its client to read that.
   *
   * @throws FeedError
   */
  async end(id: string, administrator: Administrator): Promise<StreamView> {
    requireAdministrator(administrator);
    const found = this.find(id);
    if (!found || !maySee(administrator, found[0])) throw this.unknown();
    const [call, number] = found;
    const reason = endedByOperator();
    // It looks at the call before that is aborted. What it has to ask the store for must not keep the call open.
    const looking = this.view(number, call, this.watchesByCall().get(call));
    call.abort(reason);
    if (call.signal.reason !== reason) throw this.unknown();
    const view = await looking;
    const { caller, peer } = administrator;
    this.log.info(
      { context: 'admin', principal: caller.principal, peer, ended: view },
      'an operator has ended a call',
    );
    return view;
  }

  private watchesByCall(): ReadonlyMap<CallRecord, Watch> {
    return new Map([...this.watches.open].map((watch) => [watch.call, watch]));
  }

  /** Returns an error that does not repeat the id, which may be longer than a status may be. */
  private unknown(): FeedError {
    return new FeedError(
      'STREAM_UNKNOWN',
      `the replica ${this.replica.text} has no such call that you may end: it has ended, or is of another replica`,
    );
  }

  /** Returns the open stream with an id. */
  private find(id: string): readonly [LiveCall, number] | undefined {
    for (const [call, number] of this.calls.numbered())
      if (call.isStream && id === this.idOf(number)) return [call, number];
    return undefined;
  }

  private idOf(number: number): string {
    return `${this.replica.token}-${number}`;
  }

  private async view(
    number: number,
    call: LiveCall,
    watch: Watch | undefined,
  ): Promise<StreamView> {
    const { method, peer, events, bytes, notes } = call;
    const behind = await watch?.behind();
    return {
      id: this.idOf(number),
      method,
      principal: notes.principal,
      peer,
      topics: topicsOf(call),
      startedAt: Math.round(Date.now() - (performance.now() - call.startedAt)),
      events,
      bytes,
      behind,
    };
  }
}

/** Returns the topics and patterns that a call is about, as far as that is known. */
function topicsOf({ notes }: LiveCall): readonly string[] {
  return notes.topics ?? (notes.topic === undefined ? [] : [notes.topic]);
}

/** True if the administrator may administer an open call: all topics that it is about. */
function maySee(administrator: Administrator, call: LiveCall): boolean {
  const topics = topicsOf(call);
  if (topics.length === 0) return mayAdminister(administrator);
  return topics.every((topic) => mayAdminister(administrator, topic));
}
