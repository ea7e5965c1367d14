import {
  Inject,
  Injectable,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import type { Logger } from 'pino';
import { Bell } from '../broker/bell.js';
import { Rooms } from '../broker/rooms.js';
import { LOG } from '../telemetry/log.js';
import { Chats } from './chat.js';
import { Uploads } from './upload.js';
import { Watches } from './watch.js';

/** How many of each are open now. A number that grows without more clients shows a leak. */
export interface OpenCounts {
  readonly watches: number;
  readonly uploads: number;
  readonly chats: number;
  /** Watches that the bell wakes. */
  readonly subscriptions: number;
  /** Seats that chats hold in rooms: a chat in three rooms has three. */
  readonly members: number;
}

/** The counts are logged at most this often (milliseconds). */
const LOG_INTERVAL = 1_000;

/** Counts what is open, for the line of the log that begins a drain, and for tests. At level debug, it logs the counts when they have changed. */
@Injectable()
export class OpenWork implements OnApplicationBootstrap, OnApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  private logged = '';

  constructor(
    private readonly watches: Watches,
    private readonly uploads: Uploads,
    private readonly chats: Chats,
    private readonly bell: Bell,
    private readonly rooms: Rooms,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  get counts(): OpenCounts {
    return {
      watches: this.watches.open.size,
      uploads: this.uploads.open,
      chats: this.chats.open,
      subscriptions: this.bell.subscriptions,
      members: this.rooms.seats,
    };
  }

  onApplicationBootstrap(): void {
    if (!this.log.isLevelEnabled('debug')) return;
    this.timer = setInterval(() => this.logChange(), LOG_INTERVAL).unref();
  }

  /** Logs what the shutdown has left open, which is nothing unless something leaks. */
  onApplicationShutdown(): void {
    clearInterval(this.timer);
    this.logChange();
  }

  private logChange(): void {
    const { counts } = this;
    const text = JSON.stringify(counts);
    if (text === this.logged) return;
    this.logged = text;
    this.log.debug({ context: 'open', ...counts }, 'open now');
  }
}
