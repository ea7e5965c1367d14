import { z } from 'zod';
import { address, count, duration, oneOf, size } from './parse.js';

/**
 * Every setting: an environment variable with its default. README.md has the same as a table, and helm/feed as values;
 * test/config/documents.spec.ts fails where one of them differs.
 */
export const SETTINGS = z.object({
  /** Where gRPC listens: host:port. */
  FEED_GRPC_ADDRESS: address.prefault('127.0.0.1:50051'),
  /** Where HTTP listens, for probes: host:port. */
  FEED_HTTP_ADDRESS: address.prefault('127.0.0.1:8080'),
  /** The directory of the log. One process at a time. */
  FEED_DATA_DIR: z.string().min(1, 'must name a directory').prefault('./data'),
  /** Where events are kept: lmdb (in FEED_DATA_DIR) or memory (lost at the end of the process). */
  FEED_ENGINE: oneOf('lmdb', 'memory').prefault('lmdb'),
  /** What an acknowledgement means: fsync (flushed to disk) or none. Follows the engine. */
  FEED_DURABILITY: oneOf('fsync', 'none').optional(),
  /** The largest event an upload may send, encoded. */
  FEED_MAX_EVENT_BYTES: size('1KiB', '3MiB').prefault('1MiB'),
  /** How long an event's id is remembered, to leave out the same event sent again. 0s: not at all. */
  FEED_DEDUP_WINDOW: duration('0s', '24h').prefault('2m'),
  /** How many ids are remembered at most; 28 bytes of memory each. */
  FEED_DEDUP_IDS: count(0, 100_000_000).prefault('1000000'),
  /** Events are removed when they were stored so long ago; 0s: not for their age. */
  FEED_RETENTION_MAX_AGE: duration('0s', '87600h').prefault('0s'),
  /** The oldest events are removed while all take more; 0B: no limit. Keep it well below the volume's size. */
  FEED_RETENTION_MAX_BYTES: size('0B', '100000GiB').prefault('0B'),
  /** The same for the events of each topic. */
  FEED_RETENTION_TOPIC_MAX_BYTES: size('0B', '100000GiB').prefault('0B'),
  /** Uploads that would take all that is held over it are refused, and nothing is removed; 0B: no limit. */
  FEED_QUOTA_BYTES: size('0B', '100000GiB').prefault('0B'),
  /** How much of one upload or chat may be under way towards the server: HTTP/2's stream window. */
  FEED_STREAM_WINDOW: size('64KiB', '64MiB').prefault('1MiB'),
  /** So much may be under way or not yet taken of all uploads and chats of one connection; half of it is HTTP/2's session window. */
  FEED_SESSION_WINDOW: size('128KiB', '256MiB').prefault('16MiB'),
  /** The most bytes that all connections together may have sent and no handler has taken. Over it, the largest is ended. */
  FEED_RECEIVE_BYTES: size('1MiB', '64GiB').prefault('256MiB'),
  /** After this long a silence, a client is asked for a sign of life: HTTP/2's PING. */
  FEED_KEEPALIVE_TIME: duration('100ms', '1h').prefault('30s'),
  /** A client that stays silent for this much longer is taken for gone. */
  FEED_KEEPALIVE_TIMEOUT: duration('100ms', '1h').prefault('10s'),
  /** After SIGTERM: how long to go on serving while not ready, so that load balancers notice. */
  FEED_DRAIN_DELAY: duration('0s', '10m').prefault('0s'),
  /** After that: how long uploads may take to finish. */
  FEED_DRAIN_TIMEOUT: duration('0s', '10m').prefault('20s'),
  FEED_LOG_LEVEL: oneOf('trace', 'debug', 'info', 'warn', 'error', 'silent').prefault('info'),
  /** json (one object a line) or pretty (for people). The default follows where the log goes. */
  FEED_LOG_FORMAT: oneOf('json', 'pretty').optional(),
});

type Settings = z.output<typeof SETTINGS>;

/** The settings of this process: read once, checked, frozen. Durations are milliseconds, sizes are bytes. */
export type Config = Readonly<ReturnType<typeof toConfig>>;

export type Address = Readonly<Config['grpcAddress']>;

/** Nest's token for Config. */
export const CONFIG = Symbol('Config');

/** Settings that cannot be used; the message names each. */
export class ConfigError extends Error {}

// What Kubernetes injects into a pod for each Service of its namespace: for one called feed, or feed-x,
// FEED_SERVICE_HOST, FEED_PORT=tcp://..., FEED_X_PORT_50051_TCP_ADDR. And the client's own settings.
const OF_OTHERS = [
  /^FEED_(\w+_)?SERVICE_(HOST|PORT(_\w+)?)=/,
  /^FEED_(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=/,
  // By its value, because FEED_PORT=50051 is somebody's guess at a setting.
  /^FEED_(\w+_)?PORT=(tcp|udp|sctp):/,
  /^FEED_(ADDRESS|TOKEN)=/,
];

/**
 * @param toTerminal whether the log goes to a terminal
 * @throws ConfigError
 */
export function readConfig(env: NodeJS.ProcessEnv, toTerminal: boolean): Config {
  const names = Object.keys(env).filter((name) => name.startsWith('FEED_'));
  const problems = names
    .filter(
      (name) =>
        !(name in SETTINGS.shape) &&
        !OF_OTHERS.some((others) => others.test(`${name}=${env[name]}`)),
    )
    .map(
      (name) =>
        `${name} is not a setting. The settings are ${Object.keys(SETTINGS.shape).join(', ')}`,
    );

  const parsed = SETTINGS.safeParse(env);
  if (!parsed.success) {
    for (const { path, message } of parsed.error.issues) {
      const name = String(path[0]);
      problems.push(`${name}=${env[name]}: ${message}`);
    }
  }
  if (env.FEED_ENGINE === 'memory' && env.FEED_DURABILITY === 'fsync') {
    problems.push(
      'FEED_DURABILITY=fsync: the memory engine keeps nothing on disk; use FEED_ENGINE=lmdb',
    );
  }
  if (parsed.success && parsed.data.FEED_STREAM_WINDOW > parsed.data.FEED_SESSION_WINDOW) {
    problems.push(
      'FEED_STREAM_WINDOW is larger than FEED_SESSION_WINDOW, which holds all streams of a connection',
    );
  }
  if (parsed.success && parsed.data.FEED_SESSION_WINDOW > parsed.data.FEED_RECEIVE_BYTES) {
    problems.push(
      'FEED_SESSION_WINDOW is larger than FEED_RECEIVE_BYTES, which holds what all connections send',
    );
  }
  if (
    parsed.success &&
    parsed.data.FEED_QUOTA_BYTES > 0 &&
    parsed.data.FEED_RETENTION_MAX_BYTES > 0
  ) {
    problems.push(
      'FEED_QUOTA_BYTES refuses uploads where FEED_RETENTION_MAX_BYTES removes the oldest events: set one of them',
    );
  }
  if (problems.length > 0 || !parsed.success) throw new ConfigError(problems.join('\n'));

  return Object.freeze(toConfig(parsed.data, toTerminal));
}

/** Names the settings as the code does, and settles those that follow from others. */
function toConfig(settings: Settings, toTerminal: boolean) {
  return {
    grpcAddress: settings.FEED_GRPC_ADDRESS,
    httpAddress: settings.FEED_HTTP_ADDRESS,
    dataDir: settings.FEED_DATA_DIR,
    engine: settings.FEED_ENGINE,
    durability: settings.FEED_DURABILITY ?? (settings.FEED_ENGINE === 'lmdb' ? 'fsync' : 'none'),
    maxEventBytes: settings.FEED_MAX_EVENT_BYTES,
    dedupWindow: settings.FEED_DEDUP_WINDOW,
    /** 0 where nothing is remembered. */
    dedupIds: settings.FEED_DEDUP_WINDOW === 0 ? 0 : settings.FEED_DEDUP_IDS,
    retention: {
      maxAge: settings.FEED_RETENTION_MAX_AGE,
      maxBytes: settings.FEED_RETENTION_MAX_BYTES,
      topicMaxBytes: settings.FEED_RETENTION_TOPIC_MAX_BYTES,
      quotaBytes: settings.FEED_QUOTA_BYTES,
    },
    streamWindow: settings.FEED_STREAM_WINDOW,
    sessionWindow: settings.FEED_SESSION_WINDOW,
    receiveBytes: settings.FEED_RECEIVE_BYTES,
    keepaliveTime: settings.FEED_KEEPALIVE_TIME,
    keepaliveTimeout: settings.FEED_KEEPALIVE_TIMEOUT,
    drainDelay: settings.FEED_DRAIN_DELAY,
    drainTimeout: settings.FEED_DRAIN_TIMEOUT,
    logLevel: settings.FEED_LOG_LEVEL,
    logFormat: settings.FEED_LOG_FORMAT ?? (toTerminal ? 'pretty' : 'json'),
  };
}
