import type { Lag, Phase } from '../feed/watch-lag.js';
import type { LogStatus } from '../repository/event-repository.js';
import type { Histogram } from '../telemetry/histogram.js';

/** What is found out once for each page, because it takes a look at all watches, or an answer of a disk or of NATS. */
export interface Readings {
  readonly log: LogStatus;
  readonly lag: Readonly<Record<Phase, Lag>>;
}

export interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  /** There is no sample if it is undefined. */
  readonly value: number | undefined;
}

interface Described {
  /** With the prefix `feed_` and the unit, as Prometheus wants it. docs/metrics.md has a row with the same name and help. */
  readonly name: string;
  readonly help: string;
}

/** A metric: what it is called, and how it is read from the numbers that the service keeps. */
export type Definition =
  | (Described & {
      readonly type: 'counter' | 'gauge';
      readonly labels?: readonly string[];
      readonly read: (readings: Readings) => number | undefined | readonly Sample[];
    })
  | (Described & { readonly type: 'histogram'; readonly histogram: Histogram });
