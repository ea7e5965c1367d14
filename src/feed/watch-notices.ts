import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';
import { LOG } from '../telemetry/log.js';
import { atMostOnceAMinute } from '../telemetry/once-a-minute.js';
import { HeadHistory } from './head-history.js';
import { type Watch, Watches } from './watch.js';

/** Open watches are looked at this often (milliseconds). */
const LOOK_INTERVAL = 5_000;
/** A watch is slow if it had got to the head of the log, and is this many seconds behind. */
const SLOW_SECONDS = 30;

/**
 * Tells the operator of watches that are slow, each once until it has caught up, and of those that retention has overtaken, in at
 * most one line a minute.
 */
@Injectable()
export class WatchNotices implements OnApplicationShutdown {
  private slow: ReadonlySet<Watch> = new Set();
  private readonly timer = setInterval(() => this.look(), LOOK_INTERVAL).unref();

  constructor(
    private readonly watches: Watches,
    private readonly heads: HeadHistory,
    @Inject(LOG) private readonly log: Logger,
  ) {
    // Not the watch: that would keep all of its call in memory.
    let last: object | undefined;
    const report = atMostOnceAMinute((overtaken) =>
      this.log.warn(
        { context: 'watch', overtaken, ...last },
        'events were removed before a watch was sent them: it ends with CURSOR_EXPIRED. Keep events for longer, or see why it is slow',
      ),
    );
    watches.onOvertaken = (watch) => {
      last = describe(watch);
      report();
    };
  }

  onApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  private look(): void {
    const before = this.heads.before(SLOW_SECONDS);
    const slow = new Set<Watch>();
    const found: Watch[] = [];
    for (const watch of this.watches.open) {
      if (!watch.hasCaughtUp) continue;
      const isKnown = this.slow.has(watch);
      // One that was slow is so until it has got to the head again.
      if (!watch.isBehind(isKnown ? Infinity : before)) continue;
      slow.add(watch);
      if (!isKnown) found.push(watch);
    }
    this.slow = slow;
    if (found.length === 0) return;
    const others = found.length > 1 ? `, and ${found.length - 1} more` : '';
    this.log.warn(
      { context: 'watch', ...describe(found[0]) },
      `a watch is more than ${SLOW_SECONDS} s behind${others}: its client, or the network to it, is slow`,
    );
  }
}

const describe = ({ topics, call }: Watch): object => ({
  topic: topics[0],
  ...(topics.length > 1 && { topics: topics.length }),
  peer: call.peer,
  principal: call.notes.principal,
});
