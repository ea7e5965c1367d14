import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, type Config } from '../config/config.js';
import { type Durability, EventRepository } from '../repository/event-repository.js';
import { formatCursor } from '../wire/cursor.js';
import { EVERY_TOPIC } from '../wire/topic-pattern.js';
import { type Administrator, requireAdministrator } from './administrator.js';
import { Chats } from './chat.js';
import { LiveCalls } from './live-calls.js';
import { Readiness, type State } from './readiness.js';
import { RecentSteps, type Step } from './recent-steps.js';
import { type StoredView, storedView } from './topics.js';
import { Uploads } from './upload.js';
import { PHASES, WatchLag } from './watch-lag.js';
import { Watches } from './watch.js';

/** This process and its log as an operator sees them. */
export interface StatsView {
  readonly engine: string;
  readonly durability: Durability;
  readonly state: State;
  /** When the process was started, in milliseconds of Date.now(). */
  readonly startedAt: number;
  readonly watches: number;
  readonly uploads: number;
  readonly chats: number;
  readonly rooms: number;
  /** Connections that have an open call, over any door. */
  readonly connections: number;
  /** Watches whose next event has been stored for more than a second, and was not sent. */
  readonly watchesBehind: number;
  /** The bytes of all events that are held. This and the next three are undefined where the store does not say. */
  readonly logBytes: number | undefined;
  readonly diskFreeBytes: number | undefined;
  readonly oldest: StoredView | undefined;
  readonly newest: StoredView | undefined;
  /** The cursor at the end of the log. */
  readonly head: string;
  /** The last 15 minutes, the oldest step first. */
  readonly steps: readonly Step[];
}

/** Shows operators how much comes and goes, now and in the last minutes. */
@Injectable()
export class Stats {
  private readonly startedAt = Date.now() - process.uptime() * 1_000;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly repository: EventRepository,
    private readonly watches: Watches,
    private readonly uploads: Uploads,
    private readonly chats: Chats,
    private readonly calls: LiveCalls,
    private readonly lag: WatchLag,
    private readonly readiness: Readiness,
    private readonly recent: RecentSteps,
  ) {}

  /**
   * Resolves within a little more than a second: what a disk or NATS does not say in time is missing. It costs a look at each open call
   * and watch.
   *
   * @throws FeedError
   */
  async read(administrator: Administrator): Promise<StatsView> {
    requireAdministrator(administrator, EVERY_TOPIC);
    const { repository } = this;
    const [log, lag] = await Promise.all([repository.status(), this.lag.measure()]);
    return {
      engine: this.config.engine,
      durability: repository.durability,
      state: this.readiness.state,
      startedAt: this.startedAt,
      watches: this.watches.open.size,
      uploads: this.uploads.open,
      chats: this.chats.open,
      rooms: this.chats.rooms.open,
      connections: new Set(Array.from(this.calls, ({ peer }) => peer)).size,
      watchesBehind: PHASES.reduce((sum, phase) => sum + lag[phase].count, 0),
      logBytes: log.heldBytes,
      diskFreeBytes: log.disk?.free,
      oldest: storedView(repository, log.oldest),
      newest: storedView(repository, log.newest),
      head: formatCursor(repository.cursorAt(repository.head)),
      steps: this.recent.all,
    };
  }
}
