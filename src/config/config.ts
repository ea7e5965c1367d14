import { contradictions } from './contradictions.js';
import { type Settings, SETTINGS } from './settings.js';

/** The settings of this process: read once, checked, frozen. Durations are milliseconds, sizes are bytes. */
export type Config = Readonly<ReturnType<typeof toConfig>>;

export type Address = Readonly<Config['grpcAddress']>;

/** Nest's token for Config. */
export const CONFIG = Symbol('Config');

/** The settings can't be used; the message says why, with a line for each. */
export class ConfigError extends Error {}

// Variables that begin with FEED_ and are not meant for this process. Kubernetes sets some for each Service of the pod's
// namespace, such as FEED_SERVICE_HOST, FEED_PORT=tcp://... (for feed) or FEED_X_PORT_50051_TCP_ADDR (for feed-x). The
// last pattern is for the client's own settings.
const FOREIGN = [
  /^FEED_(\w+_)?SERVICE_(HOST|PORT(_\w+)?)=/,
  /^FEED_(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=/,
  // Only with such a value, because somebody who sets FEED_PORT=50051 takes it for a setting.
  /^FEED_(\w+_)?PORT=(tcp|udp|sctp):/,
  /^FEED_(ADDRESS|(TO_)?(TOKEN(_FILE)?|CLIENT_TLS_(CA|CERT|KEY)))=/,
];

/**
 * Returns a refused value without the passwords and the queries of its URLs, and nothing of one with a key or a token in it (a JWT begins with
 * `eyJ`). The value may be no URL, and a password may have any sign in it: nothing is left before the last `@`.
 */
function withoutSecret(value: string): string {
  if (/-----BEGIN|\beyJ/.test(value)) return '...';
  if (!value.includes(':')) return value;
  return value.replace(/^(\w+:\/\/)?.*@/s, '$1...@').replace(/\?.*/s, '?...');
}

/** Returns the pairs of letters that stand side by side in the name of a setting, and its last letter. */
function pairsOf(name: string): Set<string> {
  const letters = name.toUpperCase().slice('FEED_'.length);
  return new Set(Array.from(letters, (_, i) => letters.slice(i, i + 2)));
}

/** Returns the settings whose names share the most pairs of letters with this one, and half of them at least. */
function nearest(name: string): string[] {
  const wanted = pairsOf(name);
  const likeness = Object.keys(SETTINGS.shape).map((known) => {
    const pairs = pairsOf(known);
    const shared = [...wanted].filter((pair) => pairs.has(pair)).length;
    return [known, (2 * shared) / (wanted.size + pairs.size)] as const;
  });
  const most = Math.max(0.5, ...likeness.map(([, like]) => like));
  return likeness.filter(([, like]) => like === most).map(([known]) => known);
}

/**
 * Reads and checks the settings.
 *
 * @param toTerminal true if the log goes to a terminal
 * @throws ConfigError
 */
export function readConfig(env: NodeJS.ProcessEnv, toTerminal: boolean): Config {
  const unknown = Object.keys(env).filter(
    (name) =>
      name.startsWith('FEED_') &&
      !(name in SETTINGS.shape) &&
      !FOREIGN.some((pattern) => pattern.test(`${name}=${env[name]}`)),
  );
  const guesses = unknown.map((name) => nearest(name).join(' or '));
  const problems = unknown.map(
    (name, i) => `${name} is not a setting${guesses[i] && `: did you mean ${guesses[i]}?`}`,
  );

  const { data, error } = SETTINGS.safeParse(env);
  for (const issue of error?.issues ?? []) {
    const name = String(issue.path[0]);
    const isHidden = issue.code === 'custom' && issue.params?.isHidden === true;
    const shown = isHidden ? '...' : withoutSecret(env[name] ?? '');
    problems.push(`${name}=${shown}: ${issue.message}`);
  }
  if (data) problems.push(...contradictions(data));
  // Only where a name is like none of them, once, and last: the list is long.
  if (guesses.includes(''))
    problems.push(`The settings are ${Object.keys(SETTINGS.shape).join(', ')}`);
  if (problems.length > 0 || !data) throw new ConfigError(problems.join('\n'));

  return Object.freeze(toConfig(data, toTerminal));
}

/** Gives the settings the names that the code uses, and sets the defaults that depend on other settings. */
function toConfig(settings: Settings, toTerminal: boolean) {
  return {
    grpcAddress: settings.FEED_GRPC_ADDRESS,
    httpAddress: settings.FEED_HTTP_ADDRESS,
    httpOrigins: settings.FEED_HTTP_ORIGINS,
    hasConsole: settings.FEED_CONSOLE === 'on',
    healthAddress: settings.FEED_HEALTH_ADDRESS,
    metricsAddress: settings.FEED_METRICS_ADDRESS,
    metricsTopics: settings.FEED_METRICS_TOPICS,
    /** The PEM files of the ports' certificate and of clients' authorities; undefined: no TLS. */
    tls: tlsOf(settings),
    isInsecureAllowed: settings.FEED_INSECURE === 'allow',
    dataDir: settings.FEED_DATA_DIR,
    engine: settings.FEED_ENGINE,
    durability: settings.FEED_DURABILITY ?? (settings.FEED_ENGINE === 'memory' ? 'none' : 'fsync'),
    maxEventBytes: settings.FEED_MAX_EVENT_BYTES,
    dedupWindow: settings.FEED_DEDUP_WINDOW,
    /** Deduplication is off if this or dedupWindow is 0. */
    dedupIds: settings.FEED_DEDUP_IDS,
    retention: {
      maxAge: settings.FEED_RETENTION_MAX_AGE,
      maxBytes: settings.FEED_RETENTION_MAX_BYTES,
      topicMaxBytes: settings.FEED_RETENTION_TOPIC_MAX_BYTES,
      quotaBytes: settings.FEED_QUOTA_BYTES,
    },
    nats: {
      servers: settings.FEED_NATS_SERVERS,
      stream: settings.FEED_NATS_STREAM,
      replicas: Number(settings.FEED_NATS_REPLICAS),
      credentials: settings.FEED_NATS_CREDENTIALS,
      tlsCa: settings.FEED_NATS_TLS_CA,
      tlsCert: settings.FEED_NATS_TLS_CERT,
      tlsKey: settings.FEED_NATS_TLS_KEY,
      monitorUrls: settings.FEED_NATS_MONITOR_URLS,
      systemCredentials: settings.FEED_NATS_SYSTEM_CREDENTIALS,
      isFlushVouched: settings.FEED_NATS_FLUSH === 'vouched',
      patience: settings.FEED_NATS_PATIENCE,
    },
    jwt: jwtOf(settings),
    policyFile: settings.FEED_POLICY_FILE,
    streamWindow: settings.FEED_STREAM_WINDOW,
    sessionWindow: settings.FEED_SESSION_WINDOW,
    receiveBytes: settings.FEED_RECEIVE_BYTES,
    keepaliveTime: settings.FEED_KEEPALIVE_TIME,
    keepaliveTimeout: settings.FEED_KEEPALIVE_TIMEOUT,
    resetBurst: settings.FEED_RESET_BURST,
    maxCalls: {
      watches: {
        inAll: settings.FEED_MAX_WATCHES,
        perConnection: settings.FEED_MAX_WATCHES_PER_CONNECTION,
        perPrincipal: settings.FEED_MAX_WATCHES_PER_PRINCIPAL,
      },
      uploads: {
        inAll: settings.FEED_MAX_UPLOADS,
        perConnection: settings.FEED_MAX_UPLOADS_PER_CONNECTION,
        perPrincipal: settings.FEED_MAX_UPLOADS_PER_PRINCIPAL,
      },
      chats: {
        inAll: settings.FEED_MAX_CHATS,
        perConnection: settings.FEED_MAX_CHATS_PER_CONNECTION,
        perPrincipal: settings.FEED_MAX_CHATS_PER_PRINCIPAL,
      },
    },
    maxRooms: settings.FEED_MAX_ROOMS,
    maxSubscriptions: settings.FEED_MAX_SUBSCRIPTIONS,
    maxTopics: settings.FEED_MAX_TOPICS,
    maxMetadataBytes: settings.FEED_MAX_METADATA_BYTES,
    unstored: {
      perUpload: settings.FEED_UNSTORED_BYTES_PER_UPLOAD,
      inAll: settings.FEED_UNSTORED_BYTES,
    },
    maxConnections: settings.FEED_MAX_CONNECTIONS || Infinity,
    uploadRate: {
      events: settings.FEED_UPLOAD_EVENTS_PER_SECOND,
      bytes: settings.FEED_UPLOAD_BYTES_PER_SECOND,
    },
    maxConnectionAge: settings.FEED_MAX_CONNECTION_AGE,
    maxConnectionAgeGrace: settings.FEED_MAX_CONNECTION_AGE_GRACE,
    drainDelay: settings.FEED_DRAIN_DELAY,
    drainTimeout: settings.FEED_DRAIN_TIMEOUT,
    /** Without other replicas, there are none that all clients could come to at once. */
    drainSpread: settings.FEED_ENGINE === 'jetstream' ? settings.FEED_DRAIN_SPREAD : 0,
    /** Where traces go; undefined: nowhere. */
    traces: settings.FEED_OTLP_ENDPOINT && {
      endpoint: settings.FEED_OTLP_ENDPOINT,
      percent: settings.FEED_TRACES_PERCENT,
    },
    logLevel: settings.FEED_LOG_LEVEL,
    logFormat: settings.FEED_LOG_FORMAT ?? (toTerminal ? 'pretty' : 'json'),
  };
}

/** readConfig() has refused half of a pair. */
function tlsOf({ FEED_TLS_CERT: cert, FEED_TLS_KEY: key, FEED_TLS_CLIENT_CA: clientCa }: Settings) {
  return cert === undefined || key === undefined ? undefined : { cert, key, clientCa };
}

/** How tokens are checked; undefined if callers need none. */
function jwtOf(settings: Settings) {
  const keys = keysOf(settings);
  return (
    keys && {
      keys,
      issuer: settings.FEED_JWT_ISSUER,
      audience: settings.FEED_JWT_AUDIENCE,
      algorithms: settings.FEED_JWT_ALGORITHMS,
      clockTolerance: settings.FEED_JWT_CLOCK_TOLERANCE,
    }
  );
}

/** Where the public keys are by which tokens are checked. `file`, `ca` and `token` are paths. */
type KeySource =
  { readonly url: URL; readonly ca?: string; readonly token?: string } | { readonly file: string };

function keysOf(settings: Settings): KeySource | undefined {
  const { FEED_JWT_PUBLIC_KEY: path, FEED_JWT_JWKS_URL: url } = settings;
  if (url) return { url, ca: settings.FEED_JWT_JWKS_CA, token: settings.FEED_JWT_JWKS_TOKEN };
  return path === undefined ? undefined : { file: path };
}
