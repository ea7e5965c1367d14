import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';
import { Bell } from '../broker/bell.js';
import {
  AppendError,
  EventRepository,
  type HeldTopic,
  type StoredAt,
} from '../repository/event-repository.js';
import { nextTurn } from '../repository/turns.js';
import { LOG } from '../telemetry/log.js';
import { formatCursor } from '../wire/cursor.js';
import { topicProblem } from '../wire/topic.js';
import { type Administrator, requireAdministrator } from './administrator.js';
import { FeedError } from './errors.js';
import { writeFailed, rethrowAsUnavailable } from './store-errors.js';

/** A topic as an operator sees it. */
export interface TopicView {
  readonly topic: string;
  readonly events: number;
  /** The size of its framed events. */
  readonly bytes: number;
  /** Undefined if nothing is held, as `newest` is then. */
  readonly oldest: StoredView | undefined;
  readonly newest: StoredView | undefined;
  /** Its open watches in this process. */
  readonly watches: number;
}

export interface StoredView {
  readonly cursor: string;
  /** The log's time when the event was stored, in milliseconds. */
  readonly time: number;
}

/** Part of the topics, and the token to ask for the next part with; empty after the last one. */
export interface TopicPage {
  readonly topics: readonly TopicView[];
  readonly next: string;
}

/** The topics of a page, if the caller does not say how many, and at most. */
const USUAL_PAGE = 100;
const LARGEST_PAGE = 1_000;
/** This many topics of a page are looked up at a time. */
const AT_ONCE = 50;

/** Shows operators the topics of the log, and removes them. */
@Injectable()
export class Topics {
  constructor(
    private readonly repository: EventRepository,
    private readonly bell: Bell,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  /**
   * Returns a page of the topics that begin with a prefix and that the administrator may see. It costs a few searches for each
   * topic of the page, however many topics and events there are, and one for each topic before them that the administrator may
   * not see. On jetstream it costs three questions to the leader for each topic of the page, and for the first page a list of
   * all topics (docs/operations.md).
   *
   * @param size the most topics of the page; 0 for the usual number
   * @param token `next` of the page before; empty for the first one
   * @param signal aborts once nobody waits for the page
   * @throws FeedError
   */
  async list(
    prefix: string,
    size: number,
    token: string,
    administrator: Administrator,
    signal: AbortSignal,
  ): Promise<TopicPage> {
    requireAdministrator(administrator);
    // A prefix such as `orders.` would be a topic but for what follows its last dot.
    const problem = prefix === '' ? undefined : topicProblem(prefix.replace(/\.$/, '.x'));
    if (problem !== undefined) throw new FeedError('TOPIC_INVALID', `prefix: ${problem}`);
    if (token !== '' && topicProblem(token) !== undefined)
      throw new FeedError(
        'REQUEST_INVALID',
        'page_token is not one of this service: send one as it was received, or none',
      );
    await this.repository.catchUp()?.catch(rethrowAsUnavailable);
    const after = token === '' ? undefined : token;
    const most = size === 0 ? USUAL_PAGE : Math.min(size, LARGEST_PAGE);
    const own = await this.ownTopics(prefix, after, most, administrator, signal);
    const topics: TopicView[] = [];
    for (let i = 0; i < own.length; i += AT_ONCE) {
      const views = await Promise.all(own.slice(i, i + AT_ONCE).map((topic) => this.view(topic)));
      topics.push(...views.filter(({ events }) => events > 0));
    }
    return { topics, next: own.length === most ? own[most - 1] : '' };
  }

  /**
   * Returns the next topics that the administrator may see, fewer than `most` only at the end. It looks past those of others, so
   * that no token of a page is the name of one. Some may hold nothing any more.
   */
  private async ownTopics(
    prefix: string,
    after: string | undefined,
    most: number,
    { caller }: Administrator,
    signal: AbortSignal,
  ): Promise<string[]> {
    const own: string[] = [];
    for (let limit = most; ; limit = LARGEST_PAGE) {
      const names = await this.repository.topics(prefix, after, limit).catch(rethrowAsUnavailable);
      for (const name of names)
        if (caller.may('admin', name) && own.push(name) === most) return own;
      if (names.length < limit) return own;
      after = names[names.length - 1];
      await nextTurn();
      signal.throwIfAborted();
    }
  }

  /**
   * Describes a topic, with 0 events if it holds none. It costs two searches, however many events there are.
   *
   * @throws FeedError
   */
  async get(topic: string, administrator: Administrator): Promise<TopicView> {
    this.require(topic, administrator);
    await this.repository.catchUp()?.catch(rethrowAsUnavailable);
    return this.view(topic);
  }

  /**
   * Removes what is held of a topic now, and resolves with what that was. It costs as much as retention of the same events: a
   * million small ones take some seconds, during which uploads go on.
   *
   * @throws FeedError
   */
  async delete(topic: string, administrator: Administrator): Promise<TopicView> {
    const removed = await this.get(topic, administrator);
    await this.repository.removeTopic(topic).catch((error: unknown) => {
      throw error instanceof AppendError ? writeFailed(error) : rethrowAsUnavailable(error);
    });
    const { caller, peer } = administrator;
    const { events, bytes } = removed;
    this.log.info(
      { context: 'admin', principal: caller.principal, peer, topic, events, bytes },
      'an operator has removed the events of a topic',
    );
    return removed;
  }

  private require(topic: string, administrator: Administrator): void {
    const problem = topicProblem(topic);
    if (problem !== undefined) throw new FeedError('TOPIC_INVALID', `topic: ${problem}`);
    requireAdministrator(administrator, topic);
  }

  private async view(topic: string): Promise<TopicView> {
    const held = await this.repository.heldOf(topic).catch(rethrowAsUnavailable);
    const watches = this.bell.listenersOf(topic);
    const { events = 0, bytes = 0, oldest, newest }: Partial<HeldTopic> = held ?? {};
    const { repository } = this;
    return {
      topic,
      events,
      bytes,
      oldest: storedView(repository, oldest),
      newest: storedView(repository, newest),
      watches,
    };
  }
}

/** Shows an event of the log by its cursor. */
export function storedView(
  repository: EventRepository,
  at: StoredAt | undefined,
): StoredView | undefined {
  return at && { cursor: formatCursor(repository.cursorAt(at.position)), time: at.time };
}
