import * as fc from 'fast-check';

/** What producers and watchers of a few topics are going to do. The same seed makes the same plan. */
export interface Plan {
  readonly producers: readonly ProducerPlan[];
  readonly watchers: readonly WatcherPlan[];
}

export interface ProducerPlan {
  /** Which of the topics it sends to, in turns. */
  readonly topics: readonly number[];
  readonly uploads: readonly UploadPlan[];
  /** Another producer sends the same at the same time. */
  readonly hasTwin: boolean;
}

export interface UploadPlan {
  readonly events: number;
  readonly bodyBytes: number;
  /** A pause (milliseconds) after each so many events. */
  readonly burst: number;
  readonly pause: number;
  /** After half of its events, at the first try. */
  readonly ending: 'finish' | 'cancel' | 'deadline';
  /** What is sent again where not all was acknowledged. */
  readonly again: 'all' | 'the rest' | 'nothing';
}

export interface WatcherPlan {
  readonly topic: number;
  /** Begins so much later (milliseconds). */
  readonly late: number;
  /** Elsewhere: after a cursor of another topic, or of a heartbeat. */
  readonly start: 'live' | 'earliest' | 'last' | 'since' | 'elsewhere';
  /** So many of the last, or since so many tenths of a second ago. */
  readonly newest: number;
  readonly heartbeat: boolean;
  /** A pause (milliseconds) after each so many events that it reads. */
  readonly burst: number;
  readonly pause: number;
  /** After so many events it cancels, and goes on a little later (milliseconds). */
  readonly breaks: readonly { readonly events: number; readonly away: number }[];
}

/** What happens to the service that several plans run on. */
export interface Weather {
  readonly settings: Record<string, string>;
  readonly restarts: readonly { readonly after: number; readonly signal: 'SIGKILL' | 'SIGTERM' }[];
}

export const TOPICS = 3;
const topic = fc.integer({ min: 0, max: TOPICS - 1 });

const away = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2_000 }));

const bodyBytes = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 0, max: 300 }) },
  { weight: 1, arbitrary: fc.integer({ min: 10_000, max: 50_000 }) }, // larger than a run
);

const upload: fc.Arbitrary<UploadPlan> = fc.record({
  events: fc.integer({ min: 1, max: 40 }),
  bodyBytes,
  burst: fc.integer({ min: 1, max: 20 }),
  pause: fc.integer({ min: 0, max: 60 }),
  ending: fc.constantFrom('finish', 'finish', 'finish', 'cancel', 'deadline'),
  again: fc.constantFrom('all', 'the rest', 'nothing'),
});

const producer: fc.Arbitrary<ProducerPlan> = fc.record({
  topics: fc.uniqueArray(topic, { minLength: 1, maxLength: TOPICS }),
  uploads: fc.array(upload, { minLength: 1, maxLength: 6 }),
  hasTwin: fc.boolean(),
});

const watcher: fc.Arbitrary<WatcherPlan> = fc.record({
  topic,
  late: away,
  start: fc.constantFrom('live', 'earliest', 'last', 'since', 'elsewhere'),
  newest: fc.integer({ min: 1, max: 30 }),
  heartbeat: fc.boolean(),
  burst: fc.integer({ min: 1, max: 50 }),
  pause: fc.integer({ min: 0, max: 40 }),
  breaks: fc.array(fc.record({ events: fc.integer({ min: 0, max: 30 }), away }), { maxLength: 6 }),
});

const plan: fc.Arbitrary<Plan> = fc.record({
  producers: fc.array(producer, { minLength: 1, maxLength: 3 }),
  watchers: fc.array(watcher, { minLength: 1, maxLength: 4 }),
});

const SETTINGS: readonly Record<string, string>[] = [
  {},
  { FEED_RETENTION_TOPIC_MAX_BYTES: '4KiB' },
  { FEED_RETENTION_MAX_BYTES: '256KiB' },
  { FEED_RETENTION_MAX_AGE: '1s' },
];

const after = fc.integer({ min: 50, max: 1_500 });
const kill = fc.record({ after, signal: fc.constant('SIGKILL' as const) });
const restart = fc.record({ after, signal: fc.constantFrom('SIGKILL', 'SIGKILL', 'SIGTERM') });
const atMost = (maxLength: number) => fc.array(restart, { maxLength });
const withKill = fc.tuple(atMost(1), kill, atMost(1)).map((parts) => parts.flat());

export function plans(seed: number, count: number): Plan[] {
  return fc.sample(fc.noBias(plan), { seed, numRuns: count });
}

/** Of two seeds in a row, one has a kill and a retention that overtakes watchers. */
export function weatherOf(seed: number): Weather {
  const restarts = seed % 2 === 0 ? atMost(4) : withKill;
  return {
    settings: SETTINGS[seed % SETTINGS.length],
    restarts: fc.sample(fc.noBias(restarts), { seed, numRuns: 1 })[0],
  };
}
