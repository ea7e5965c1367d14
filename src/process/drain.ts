import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONFIG, type Config } from '../config/config.js';
import type { Door } from '../feed/door.js';
import { draining } from '../feed/errors.js';
import { LiveCalls } from '../feed/live-calls.js';
import { Readiness } from '../feed/readiness.js';
import { EventRepository } from '../repository/event-repository.js';

/** After the drain aborts an upload, it waits this long (milliseconds) for the client to get the result: what was stored. */
const UPLOAD_RESULT_TIMEOUT = 4_000;
/** A store that does not answer by this time (milliseconds) gets no more of it, so that there is some left for that result. */
const STORE_TIMEOUT = 2_000;
/**
 * After the drain has aborted the last watch or chat, it waits this long (milliseconds) for clients to read the reason, and then
 * closes the connections. That must come before LINGER (src/grpc/transport/unread.ts) is over, when the door resets each
 * unread call: a closed connection tells a client that the server is gone, and a reset does not. Where FEED_DRAIN_SPREAD is longer
 * than LINGER, the first ones that nobody reads are reset all the same.
 */
const STATUS_TIMEOUT = 1_000;

/** Nest's token for the doors that drain. */
export const DOORS = Symbol('Doors');

/**
 * Ends the calls of all doors before Nest closes the doors and the store. In this order: not ready; drainDelay; no new
 * calls; uploads and short calls end by themselves, or are aborted once they are idle, or after drainTimeout; watches and chats are aborted
 * within drainSpread; connections close.
 */
@Injectable()
export class Drain implements BeforeApplicationShutdown {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly readiness: Readiness,
    private readonly calls: LiveCalls,
    @Inject(DOORS) private readonly doors: readonly Door[],
    @Inject(EventRepository) private readonly store: Pick<EventRepository, 'giveUp'>,
  ) {}

  async beforeApplicationShutdown(): Promise<void> {
    const { calls, doors } = this;
    this.readiness.drain();
    await sleep(this.config.drainDelay);

    const reason = draining();
    for (const door of doors) door.stopAccepting(reason);
    const uploads = [...calls].filter(({ endless }) => !endless);
    await calls.endUploads(uploads, this.config.drainTimeout, reason);
    const giveUp = setTimeout(() => this.store.giveUp(), STORE_TIMEOUT);
    await calls.ended(uploads, UPLOAD_RESULT_TIMEOUT);
    clearTimeout(giveUp);

    await calls.endSpread([...calls], this.config.drainSpread, reason);
    await calls.ended([...calls], STATUS_TIMEOUT);
    for (const door of doors) door.closeUnread();
  }
}
