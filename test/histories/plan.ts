import * as fc from 'fast-check';

/** What the producers and watchers of a few topics are to do. The same seed makes the same plan. */
export interface Plan {
  readonly producers: readonly ProducerPlan[];
  readonly watchers: readonly WatcherPlan[];
  readonly setWatchers: readonly SetWatcherPlan[];
}

export interface ProducerPlan {
  /** The numbers of the topics that its events go to, in turns. */
  readonly topics: readonly number[];
  readonly uploads: readonly UploadPlan[];
  /** True when another producer sends the same events at the same time. */
  readonly hasTwin: boolean;
}

export interface UploadPlan {
  readonly events: number;
  readonly bodyBytes: number;
  /** The producer pauses for `pause` milliseconds after every `burst` events. */
  readonly burst: number;
  readonly pause: number;
  /** How the first call ends: 'cancel' is after half of the events, 'deadline' after two pauses. Later calls finish. */
  readonly ending: 'finish' | 'cancel' | 'deadline';
  /** Which events are sent again when a call was not acknowledged. */
  readonly again: 'all' | 'the rest' | 'nothing';
}

export interface WatcherPlan {
  readonly topic: number;
  /** How much later than the producers (milliseconds) it begins. */
  readonly late: number;
  /** 'elsewhere' is after a cursor of another topic, or of a heartbeat. */
  readonly start: 'live' | 'earliest' | 'last' | 'since' | 'elsewhere';
  /** The count of a start 'last'; how many tenths of a second ago a start 'since' is. */
  readonly newest: number;
  readonly heartbeat: boolean;
  /** The watcher pauses for `pause` milliseconds after every `burst` events. */
  readonly burst: number;
  readonly pause: number;
  /** At each break, it cancels after `events` events, and resumes `away` milliseconds later. */
  readonly breaks: readonly { readonly events: number; readonly away: number }[];
}

/** A watcher of several topics; `topic` says nothing of it. */
export interface SetWatcherPlan extends WatcherPlan {
  /** 'pattern': all topics. 'names': all but one. */
  readonly members: 'pattern' | 'names';
}

/** The settings and the restarts of the service that several plans run on. */
export interface ServicePlan {
  readonly settings: Record<string, string>;
  /** Each restart comes `after` milliseconds after the start before it. */
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

const watcherParts = {
  topic,
  late: away,
  start: fc.constantFrom('live', 'earliest', 'last', 'since', 'elsewhere'),
  newest: fc.integer({ min: 1, max: 30 }),
  heartbeat: fc.boolean(),
  burst: fc.integer({ min: 1, max: 50 }),
  pause: fc.integer({ min: 0, max: 40 }),
  breaks: fc.array(fc.record({ events: fc.integer({ min: 0, max: 30 }), away }), { maxLength: 6 }),
} as const;

const watcher: fc.Arbitrary<WatcherPlan> = fc.record(watcherParts);

const setWatcher: fc.Arbitrary<SetWatcherPlan> = fc.record({
  ...watcherParts,
  members: fc.constantFrom('pattern', 'names'),
});

const plan: fc.Arbitrary<Plan> = fc.record({
  producers: fc.array(producer, { minLength: 1, maxLength: 3 }),
  watchers: fc.array(watcher, { minLength: 1, maxLength: 4 }),
  setWatchers: fc.array(setWatcher, { maxLength: 2 }),
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

/** Makes the service's plan. Each odd seed has a kill, and a retention that overtakes watchers. */
export function servicePlanOf(seed: number): ServicePlan {
  const restarts = seed % 2 === 0 ? atMost(4) : withKill;
  return {
    settings: SETTINGS[seed % SETTINGS.length],
    restarts: fc.sample(fc.noBias(restarts), { seed, numRuns: 1 })[0],
  };
}
