import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONFIG, type Config } from '../config/config.js';
import type { Door } from '../feed/door.js';
import { draining } from '../feed/errors.js';
import { LiveCalls } from '../feed/live-calls.js';
import { Readiness } from '../feed/readiness.js';

/** How long (milliseconds) an upload that was aborted may take to say what it has stored, and its client to read that. */
const UPLOAD_FAREWELL = 4_000;
/**
 * How long (milliseconds) clients may take to read why their watches and chats end. Shorter than a door's own patience
 * (LINGER of src/grpc/transport/unread.ts), after which it resets the call: a client whose connection is closed knows
 * that the server went.
 */
const FAREWELL = 1_000;

/** Nest's token for the doors that drain. */
export const DOORS = Symbol('Doors');

/** Ends the calls of all doors before Nest closes the doors and the store. */
@Injectable()
export class Drain implements BeforeApplicationShutdown {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly readiness: Readiness,
    private readonly calls: LiveCalls,
    @Inject(DOORS) private readonly doors: readonly Door[],
  ) {}

  async beforeApplicationShutdown(): Promise<void> {
    const { calls, doors } = this;
    this.readiness.drain();
    await sleep(this.config.drainDelay);

    const reason = draining();
    for (const door of doors) door.stopAccepting(reason);
    const uploads = [...calls].filter(({ endless }) => !endless);
    await calls.ended(uploads, this.config.drainTimeout);
    for (const upload of uploads) upload.abort(reason);
    await calls.ended(uploads, UPLOAD_FAREWELL);

    for (const call of calls) call.abort(reason);
    await calls.ended([...calls], FAREWELL);
    for (const door of doors) door.closeUnread();
  }
}
