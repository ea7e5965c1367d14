import { Logger } from '@nestjs/common';
import { Backoff, pause } from '../backoff.js';
import type { Checkpoint } from '../checkpoint.js';
import { hasMoved } from '../errors.js';
import type { Feed } from '../feed.js';
import type { Event } from '../gen/feed/v1/feed.js';
import { nameTopics, type Topics } from '../topics.js';
import { handleInTrace } from '../trace.js';
import type { Watch, WatchState } from '../watch.js';
import type { FeedEventHandler, OnFeedEventOptions } from './on-feed-event.js';
import { patientCheckpoint, stackOf } from './patient-checkpoint.js';

/** A handler that gets no more events, though the app goes on. */
export interface EndedSubscription {
  /** The topics and patterns of its watch. */
  readonly topics: readonly string[];
  /** The handler's class and method, such as `Invoices.onOrder`. */
  readonly handler: string;
  /** Why, such as a CursorExpiredError. */
  readonly error: unknown;
}

/** A method that was decorated with @OnFeedEvent, with all that its watch needs. */
export interface Handler {
  /** Its class and method, such as `Invoices.onOrder`. */
  readonly name: string;
  readonly topics: Topics;
  readonly options: OnFeedEventOptions;
  readonly checkpoint: Checkpoint | undefined;
  readonly handle: FeedEventHandler;
}

/** At a shutdown that takes too long, a checkpoint still has this many milliseconds to be saved. */
const LAST_SAVE_TIMEOUT = 2_000;

const logger = new Logger('FeedModule');

/** Follows the topics of one handler, from start() to stop(). */
export class Subscription {
  /** Fires when no more events are to be handled. */
  private readonly stopping = new AbortController();
  /** Fires when stop() no longer waits for the running handler: a checkpoint that fails is not tried again after that. */
  private readonly tooLate = new AbortController();
  /** Fires with `tooLate`. Each attempt has one of its own, because handlers add listeners and may not remove them. */
  private attemptAbort: AbortController | undefined;
  private readonly watch: Watch;
  /** The handler with its topics, for the log: `Invoices.onOrder (orders)`. */
  private readonly name: string;
  private ended: Promise<void> = Promise.resolve();

  /**
   * @param onEnd is called when the watch fails, unless the app shuts down
   * @throws TypeError for options that a watch can't have
   */
  constructor(
    feed: Feed,
    private readonly handler: Handler,
    private readonly onEnd: (ended: EndedSubscription) => unknown,
  ) {
    const { name, topics, options, checkpoint } = handler;
    const { from, checkpointEvery, expired, heartbeat } = options;
    const patience = { load: this.stopping.signal, save: this.tooLate.signal };
    this.watch = feed.watch(topics, {
      from,
      checkpointEvery,
      expired,
      heartbeat,
      checkpoint: checkpoint && patientCheckpoint(checkpoint, patience, name, logger),
      signal: this.stopping.signal,
      onState: (state) => logState(this.name, state),
    });
    this.name = `${name} (${nameTopics(this.watch.topics)})`;
  }

  /** Begins to watch, in the background. */
  start(): void {
    this.ended = this.run();
  }

  /** Takes no more events, waits at most `timeout` milliseconds for the running handler, and saves the checkpoint. */
  async stop(timeout: number): Promise<void> {
    this.stopping.abort();
    if (await settlesWithin(this.ended, timeout)) return;
    this.tooLate.abort();
    this.attemptAbort?.abort();
    logger.error(
      `${this.name} did not finish within ${timeout} ms: what it has not handled comes again after the next start`,
    );
    // The handler still has the watch's last event, which therefore does not count as handled: the event before it is saved.
    const saved = this.watch[Symbol.asyncDispose]().catch((error: unknown) => this.fail(error));
    if (!(await settlesWithin(saved, LAST_SAVE_TIMEOUT)))
      logger.error(`${this.name}: the checkpoint was not saved in time`);
  }

  private async run(): Promise<void> {
    try {
      for await (const event of this.watch) {
        if (!(await this.handle(event))) break;
      }
    } catch (error) {
      await this.fail(error);
    }
  }

  /** Hands an event to the handler until that succeeds. Returns false if the app shuts down before. */
  private async handle(event: Event): Promise<boolean> {
    const { name, options, handle } = this.handler;
    const backoff = new Backoff(options.retry);
    for (let attempt = 1; ; attempt++) {
      try {
        this.attemptAbort = new AbortController();
        const { signal } = this.attemptAbort;
        await handleInTrace(event, () => handle(event, { cursor: event.cursor, attempt, signal }));
        return true;
      } catch (error) {
        const isSkipped = options.onError === 'skip';
        const wait = isSkipped ? 0 : backoff.next();
        const next = isSkipped ? 'it is skipped' : `next attempt in ${Math.round(wait)} ms`;
        logger.error(
          `${name} failed to handle event ${event.id} of ${event.topic} (attempt ${attempt}); ${next}`,
          stackOf(error),
        );
        if (isSkipped) return true;
        await pause(wait, this.stopping.signal);
        if (this.stopping.signal.aborted) return false;
      }
    }
  }

  /** Reports the error that ended the watch. */
  private async fail(error: unknown): Promise<void> {
    logger.error(`${this.name} gets no more events: its watch failed`, stackOf(error));
    if (this.stopping.signal.aborted) return;
    try {
      await this.onEnd({ topics: this.watch.topics, handler: this.handler.name, error });
    } catch (failure) {
      logger.error("FeedModule's onEnd failed", stackOf(failure));
    }
  }
}

function logState(who: string, state: WatchState): void {
  switch (state.name) {
    case 'connecting':
      logger.debug(`${who} connects`);
      break;
    case 'behind':
      logger.log(`${who} gets the events that were stored before it connected`);
      break;
    case 'live':
      logger.log(`${who} is live`);
      break;
    case 'reconnecting':
      if (hasMoved(state.reason)) logger.debug(`${who} moves to another connection`);
      else
        logger.warn(
          `${who} connects again in ${Math.round(state.wait)} ms (attempt ${state.attempt}): ${state.reason.message}`,
        );
      break;
    case 'gap':
      logger.warn(
        `${who} missed events: retention removed those after cursor ${state.after}, up to ${state.earliest}`,
      );
      break;
    case 'ended':
      logger.log(`${who} has ended`);
      break;
  }
}

/** Resolves with true when `work` has resolved, with false after the time. Rejects as `work` does. */
async function settlesWithin(work: Promise<void>, milliseconds: number): Promise<boolean> {
  const settled = new AbortController();
  try {
    return await Promise.race([
      work.then(() => true),
      pause(milliseconds, settled.signal).then(() => false),
    ]);
  } finally {
    settled.abort();
  }
}
