import { randomBytes } from 'node:crypto';
import type { DedupWindow } from '../event-repository.js';
import type { RetentionLimits } from '../retention.js';
import { SetupError } from '../../nats/setup-error.js';
import type { StreamConfig } from '../../nats/stream-api.js';
import type { FlushingServers } from './durability.js';

/** The settings that the stream is made with. */
export interface StreamSettings {
  readonly stream: string;
  readonly replicas: number;
  readonly retention: RetentionLimits;
  readonly dedup: DedupWindow;
  /** Undefined if nobody was asked whether they flush. */
  readonly servers?: FlushingServers;
}

/** The version of what is stored in the stream: subjects, metadata and the format of messages (message.ts). */
const FORMAT = '1';
/** Feed's own keys of the stream's metadata. */
const KEYS = {
  format: 'feed_format',
  token: 'feed_token',
  dedup: 'feed_dedup',
  /** The names of the servers that flush, as the last start saw that met all of them. */
  flushing: 'feed_flushing',
} as const;
/** JetStream's least. Feed leaves out duplicates by itself. */
const DUPLICATE_WINDOW = 100e6;

/**
 * Returns the configuration of a new stream.
 *
 * @throws SetupError
 */
export function newConfig(settings: StreamSettings): StreamConfig {
  refuseUnknownServers(settings, []);
  // The token is in every subject. So a process that still writes to a deleted stream can't write to its successor.
  const token = randomBytes(5).toString('hex');
  return configOf(settings, token);
}

/** Returns the token of a stream. */
export const tokenOf = (config: StreamConfig): string => config.metadata[KEYS.token];

/** Returns what the subjects of topics begin with: topic `orders` has the subject `FEED.<token>.orders`. */
export const prefixOf = (config: StreamConfig): string => `${epochsSubjectOf(config)}.`;

/** Returns the subject of the records of epochs. */
export const epochsSubjectOf = (config: StreamConfig): string =>
  `${config.name}.${tokenOf(config)}`;

/**
 * Returns how the configuration of a stream must be changed for the settings; undefined if it is as they say.
 *
 * @param isUsed true if other replicas use the stream now
 * @throws SetupError
 */
export function changedConfig(
  current: StreamConfig,
  settings: StreamSettings,
  isUsed: boolean,
): StreamConfig | undefined {
  const { stream } = settings;
  const format = current.metadata[KEYS.format];
  if (format === undefined)
    throw new SetupError(
      `the stream ${stream} was not made by Feed: name another one in FEED_NATS_STREAM`,
    );
  if (format !== FORMAT)
    throw new SetupError(
      `the stream ${stream} has format ${format}, and this version of Feed knows format ${FORMAT} only: ` +
        'run the version that made it, or a later one',
    );
  refuseUnknownServers(settings, current.metadata[KEYS.flushing]?.split(' ') ?? []);
  const wanted = configOf(settings, tokenOf(current));
  for (const name of STRUCTURE) {
    if (JSON.stringify(current[name]) === JSON.stringify(wanted[name])) continue;
    const hint =
      name === 'num_replicas'
        ? '. FEED_NATS_REPLICAS says how many; `nats stream edit` changes it'
        : '';
    throw new SetupError(
      `the stream ${stream} has ${name} ${JSON.stringify(current[name])}, and not ${JSON.stringify(wanted[name])}${hint}`,
    );
  }
  const [is, should] = [current.metadata[KEYS.dedup], wanted.metadata[KEYS.dedup]];
  if (is !== should && isUsed)
    throw new SetupError(
      `other replicas of the stream ${stream} run with a deduplication window of ${is} (ids, milliseconds), this one has ` +
        `${should}: set FEED_DEDUP_IDS and FEED_DEDUP_WINDOW alike on all, or stop all before changing them (a replica ` +
        'that was killed counts for 30 s more)',
    );
  const metadata = { ...current.metadata, ...wanted.metadata };
  const isSame =
    JSON.stringify(metadata) === JSON.stringify(current.metadata) &&
    LIMITS.every((name) => current[name] === wanted[name]);
  return isSame ? undefined : { ...current, ...wanted, metadata };
}

/**
 * A server that is down may come back while this replica runs, so it must be known to flush.
 *
 * @throws SetupError
 */
function refuseUnknownServers({ servers }: StreamSettings, known: readonly string[]): void {
  const unknown = servers?.silent.filter((name) => !known.includes(name)) ?? [];
  if (unknown.length === 0) return;
  throw new SetupError(
    `nobody knows whether the NATS server ${unknown.join(', ')} flushes what it stores: it does not answer, and no earlier start ` +
      'of Feed has seen it. Start it, and let FEED_NATS_MONITOR_URLS name it if that is set',
  );
}

/** Properties that no start changes. If one of them differs, the stream can't be served as it is, or is not one of Feed's. */
const STRUCTURE = [
  'subjects',
  'storage',
  'retention',
  'num_replicas',
  'max_msgs',
  'max_msgs_per_subject',
  'allow_direct',
  'allow_atomic',
] as const;
const LIMITS = ['max_age', 'max_bytes', 'discard'] as const;

function configOf(
  { stream, replicas, retention, dedup, servers }: StreamSettings,
  token: string,
): StreamConfig {
  const { maxAge, maxBytes, quotaBytes } = retention;
  return {
    name: stream,
    subjects: [`${stream}.${token}`, `${stream}.${token}.>`],
    storage: 'file',
    retention: 'limits',
    discard: quotaBytes > 0 ? 'new' : 'old',
    num_replicas: replicas,
    max_age: maxAge * 1e6,
    max_bytes: quotaBytes || maxBytes || -1,
    max_msgs: -1,
    max_msgs_per_subject: -1,
    max_msg_size: -1,
    duplicate_window: DUPLICATE_WINDOW,
    allow_direct: true,
    allow_atomic: true,
    metadata: {
      [KEYS.format]: FORMAT,
      [KEYS.token]: token,
      [KEYS.dedup]: `${dedup.ids}, ${dedup.milliseconds}`,
      ...(servers?.silent.length === 0 && {
        [KEYS.flushing]: servers.flushing.toSorted().join(' '),
      }),
    },
  };
}
