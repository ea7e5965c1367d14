import { Injectable } from '@nestjs/common';
import { HeadHistory } from './head-history.js';
import { type Watch, Watches } from './watch.js';

/** `replay`: the watch has not got to the head of the log yet. `live`: it had, and fell behind. */
export const PHASES = ['replay', 'live'] as const;

export type Phase = (typeof PHASES)[number];

export interface Lag {
  /** How many watches are behind. */
  count: number;
  /** How long ago (seconds) the next event of the watch that is furthest behind was stored; 0 if that is not known. */
  seconds: number;
}

/** A watch is behind if it was not sent all that was stored this many seconds ago. */
const GRACE_SECONDS = 1;

/** Finds the watches that are behind. It looks at all open watches, so it is for metrics, and not for each event. */
@Injectable()
export class WatchLag {
  constructor(
    private readonly watches: Watches,
    private readonly heads: HeadHistory,
  ) {}

  async measure(): Promise<Readonly<Record<Phase, Lag>>> {
    const before = this.heads.before(GRACE_SECONDS);
    const lags: Record<Phase, Lag> = {
      replay: { count: 0, seconds: 0 },
      live: { count: 0, seconds: 0 },
    };
    const furthest: Partial<Record<Phase, Watch>> = {};
    for (const watch of this.watches.open) {
      if (!watch.isBehind(before)) continue;
      const phase = watch.hasCaughtUp ? 'live' : 'replay';
      lags[phase].count++;
      // Positions are of all topics together, so the least one is that of the oldest event.
      if (watch.position < (furthest[phase]?.position ?? Infinity)) furthest[phase] = watch;
    }
    const ages = PHASES.map(async (phase) => {
      const watch = furthest[phase];
      const age = watch && (await watch.reader.ageOfNext(watch.position));
      lags[phase].seconds = (age ?? 0) / 1000;
    });
    await Promise.all(ages);
    return lags;
  }
}
