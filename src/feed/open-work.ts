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

/** How many of each are open right now. What grows without more clients is a leak. */
export interface OpenCounts {
  readonly watches: number;
  readonly uploads: number;
  readonly chats: number;
  /** Watches that the bell wakes. */
  readonly subscriptions: number;
  /** Seats that chats hold in rooms: a chat in three rooms has three. */
  readonly members: number;
}

/** The log says at most this often (milliseconds) what is open. */
const SAY_INTERVAL = 1_000;

/** The internal port for telemetry; also says at debug what is open, when that has changed. */
@Injectable()
export class OpenWork implements OnApplicationBootstrap, OnApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  private said = '';

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
    this.timer = setInterval(() => this.say(), SAY_INTERVAL).unref();
  }

  /** The last count is what a shutdown has left open: nothing. */
  onApplicationShutdown(): void {
    clearInterval(this.timer);
    this.say();
  }

  private say(): void {
    const { counts } = this;
    const text = JSON.stringify(counts);
    if (text === this.said) return;
    this.said = text;
    this.log.debug({ context: 'open', ...counts }, 'open now');
  }
}
