import { z } from 'zod';
import { ALGORITHMS, authProblems } from './auth.js';
import {
  address,
  count,
  duration,
  file,
  keysUrl,
  oneOf,
  optionalAddress,
  optionalUrl,
  origins,
  size,
  someOf,
  topics,
  urls,
} from './parse.js';

/** A limit of something open at a time. */
const limit = count(1, 10_000_000);

/**
 * Every setting: an environment variable with its default. README.md has the same as a table, and helm/feed as values;
 * test/config/documents.spec.ts fails where one of them differs.
 */
export const SETTINGS = z.object({
  /** Where gRPC listens: host:port. */
  FEED_GRPC_ADDRESS: address.prefault('127.0.0.1:50051'),
  /** Where HTTP listens: probes, events for curl and browsers, administration, the console. host:port. */
  FEED_HTTP_ADDRESS: address.prefault('127.0.0.1:8080'),
  /** Origins whose web pages may ask over HTTP, separated by commas, beside the service's own. */
  FEED_HTTP_ORIGINS: origins.prefault(''),
  /** off: HTTP has no console. */
  FEED_CONSOLE: oneOf('on', 'off').prefault('on'),
  /**
   * Where gRPC's health service listens without TLS, for probes that have no certificate, and nothing else: host:port. Empty:
   * nowhere.
   */
  FEED_HEALTH_ADDRESS: optionalAddress.prefault(''),
  /**
   * Where /metrics is answered without TLS, for Prometheus, and nothing else: host:port. Empty: on the HTTP port, where nobody
   * is asked for a token.
   */
  FEED_METRICS_ADDRESS: optionalAddress.prefault(''),
  /** Topics whose events metrics count by themselves, separated by commas; all others are counted together. */
  FEED_METRICS_TOPICS: topics.prefault(''),
  /**
   * PEM files: the certificate of the gRPC and HTTP ports, with those between it and its authority, and its key. They are read
   * again when they change. Empty: no TLS.
   */
  FEED_TLS_CERT: file.prefault(''),
  FEED_TLS_KEY: file.prefault(''),
  /** PEM file: the authorities that sign clients' certificates, which each client must have then. Read again, too. */
  FEED_TLS_CLIENT_CA: file.prefault(''),
  /**
   * allow: no start warns of ports that other machines reach without TLS or authentication, or of NATS without TLS, and tokens
   * may go without TLS.
   */
  FEED_INSECURE: oneOf('warn', 'allow').prefault('warn'),
  /** The directory of the log. One process at a time. */
  FEED_DATA_DIR: z.string().min(1, 'must name a directory').prefault('./data'),
  /**
   * Where events are kept: lmdb (in FEED_DATA_DIR), memory (lost at the end of the process) or jetstream (on NATS, shared
   * by several replicas).
   */
  FEED_ENGINE: oneOf('lmdb', 'memory', 'jetstream').prefault('lmdb'),
  /** The meaning of an acknowledgement: fsync (flushed to disk) or none. The default follows the engine. */
  FEED_DURABILITY: oneOf('fsync', 'none').optional(),
  /** The largest event an upload may send, encoded. */
  FEED_MAX_EVENT_BYTES: size('1KiB', '3MiB').prefault('1MiB'),
  /** How long an event's id is remembered, to leave out the same event sent again. 0s: not at all. */
  FEED_DEDUP_WINDOW: duration('0s', '24h').prefault('2m'),
  /** How many ids are remembered at most; 28 bytes of memory each. */
  FEED_DEDUP_IDS: count(0, 100_000_000).prefault('1000000'),
  /** Events stored longer ago than this are removed; 0s: no limit. */
  FEED_RETENTION_MAX_AGE: duration('0s', '87600h').prefault('0s'),
  /** While all events take more than this, the oldest are removed; 0B: no limit. Keep it well below the volume's size. */
  FEED_RETENTION_MAX_BYTES: size('0B', '100000GiB').prefault('0B'),
  /** The same for the events of each topic. */
  FEED_RETENTION_TOPIC_MAX_BYTES: size('0B', '100000GiB').prefault('0B'),
  /** Uploads that would make all events take more than this are refused, and nothing is removed; 0B: no limit. */
  FEED_QUOTA_BYTES: size('0B', '100000GiB').prefault('0B'),
  /** NATS servers of the jetstream engine: URLs, separated by commas. It needs at least one. */
  FEED_NATS_SERVERS: urls('nats:', 'tls:').prefault(''),
  /** The name of the stream. It is made at the first start. */
  FEED_NATS_STREAM: z
    .string()
    .regex(/^[\w-]{1,32}$/, 'must have 1 to 32 letters, digits, - or _')
    .prefault('FEED'),
  /** How many servers keep the stream: 1, 3 or 5. */
  FEED_NATS_REPLICAS: oneOf('1', '3', '5').prefault('3'),
  /** The creds file of the user that Feed connects as. */
  FEED_NATS_CREDENTIALS: file.prefault(''),
  /** PEM files: the authority that signed the servers' certificates, and Feed's own certificate and key. */
  FEED_NATS_TLS_CA: file.prefault(''),
  FEED_NATS_TLS_CERT: file.prefault(''),
  FEED_NATS_TLS_KEY: file.prefault(''),
  /** Monitoring URLs of all NATS servers, separated by commas: there, Feed sees whether they flush. */
  FEED_NATS_MONITOR_URLS: urls('http:', 'https:').prefault(''),
  /** The creds file of a user of the system account, for the same. */
  FEED_NATS_SYSTEM_CREDENTIALS: file.prefault(''),
  /** vouched: the operator says that all NATS servers flush. observed: Feed looks. */
  FEED_NATS_FLUSH: oneOf('observed', 'vouched').prefault('observed'),
  /** How long uploads wait for NATS before they end with STORE_UNAVAILABLE. */
  FEED_NATS_PATIENCE: duration('1s', '10m').prefault('20s'),
  /** Callers show tokens (JWT) that one of the keys of this file has signed: PEM, or a JSON Web Key Set. */
  FEED_JWT_PUBLIC_KEY: file.prefault(''),
  /** The same, with the key set of this URL: https, or http on this machine. It is read again every 5 minutes. */
  FEED_JWT_JWKS_URL: keysUrl.prefault(''),
  /** PEM file of the authority that signed the certificate of that URL's server, if the system does not know it. */
  FEED_JWT_JWKS_CA: file.prefault(''),
  /** A file with the token that the URL's server wants to see, such as that of a Kubernetes service account. */
  FEED_JWT_JWKS_TOKEN: file.prefault(''),
  /** The `iss` that tokens must have. */
  FEED_JWT_ISSUER: z.string().prefault(''),
  /** The `aud` that tokens must have, or have among others. */
  FEED_JWT_AUDIENCE: z.string().prefault(''),
  /** The algorithms that tokens may be signed with, separated by commas. */
  FEED_JWT_ALGORITHMS: someOf(...ALGORITHMS).prefault('RS256,ES256,EdDSA'),
  /** By so much the clocks of the issuer and of this machine may differ. */
  FEED_JWT_CLOCK_TOLERANCE: duration('0s', '5m').prefault('3s'),
  /** YAML file that says who may do what (docs/security.md). Without it, every caller that is known may do everything. */
  FEED_POLICY_FILE: file.prefault(''),
  /** How much a client may send on one stream before the server has read it: HTTP/2's receive window of a stream. */
  FEED_STREAM_WINDOW: size('64KiB', '64MiB').prefault('1MiB'),
  /** How much a client may send on all streams of a connection before handlers have taken it. HTTP/2's window is half of it. */
  FEED_SESSION_WINDOW: size('128KiB', '256MiB').prefault('16MiB'),
  /** The same for all connections together. Beyond it, the connection that holds most is ended. */
  FEED_RECEIVE_BYTES: size('1MiB', '64GiB').prefault('256MiB'),
  /** A client that has sent nothing for this long gets an HTTP/2 PING. */
  FEED_KEEPALIVE_TIME: duration('100ms', '1h').prefault('30s'),
  /** If it sends nothing for this long after the PING, its connection is closed. */
  FEED_KEEPALIVE_TIMEOUT: duration('100ms', '1h').prefault('10s'),
  /**
   * How many calls a client may cancel at once on a connection, and a tenth of it a second from then on. Beyond that, its
   * connection is ended. It must be more than the watches that share a connection.
   */
  FEED_RESET_BURST: count(100, 10_000_000).prefault('20000'),
  /** How many watches may be open in this process, of one connection, and of one principal. Beyond it: LIMIT_EXCEEDED. */
  FEED_MAX_WATCHES: limit.prefault('100000'),
  FEED_MAX_WATCHES_PER_CONNECTION: limit.prefault('10000'),
  FEED_MAX_WATCHES_PER_PRINCIPAL: limit.prefault('50000'),
  /** The same for uploads. */
  FEED_MAX_UPLOADS: limit.prefault('20000'),
  FEED_MAX_UPLOADS_PER_CONNECTION: limit.prefault('2000'),
  FEED_MAX_UPLOADS_PER_PRINCIPAL: limit.prefault('10000'),
  /** The same for chats. */
  FEED_MAX_CHATS: limit.prefault('20000'),
  FEED_MAX_CHATS_PER_CONNECTION: limit.prefault('2000'),
  FEED_MAX_CHATS_PER_PRINCIPAL: limit.prefault('10000'),
  /** How many rooms may have members in this process. */
  FEED_MAX_ROOMS: limit.prefault('100000'),
  /** How many topics may hold events. An event of one more is refused; events of those that do are not. */
  FEED_MAX_TOPICS: count(1, 100_000_000).prefault('1000000'),
  /** How many connections the gRPC port takes; 0: as many as the limit of open files allows. */
  FEED_MAX_CONNECTIONS: count(0, 10_000_000).prefault('0'),
  /** The most that the headers of a call may take: names and values, and 32 bytes for each header (HTTP/2's own count). */
  FEED_MAX_METADATA_BYTES: size('8KiB', '1MiB').prefault('64KiB'),
  /**
   * How much of an upload, and of all uploads together, may be accepted and not yet stored. Uploads that have more are not read
   * until the store has caught up.
   */
  FEED_UNSTORED_BYTES_PER_UPLOAD: size('64KiB', '64MiB').prefault('1MiB'),
  FEED_UNSTORED_BYTES: size('1MiB', '1GiB').prefault('16MiB'),
  /**
   * How much each principal may upload a second, or each connection, where nobody is asked who they are. Uploads that come
   * faster are read more slowly. 0, 0B: no limit.
   */
  FEED_UPLOAD_EVENTS_PER_SECOND: count(0, 1_000_000_000).prefault('0'),
  FEED_UPLOAD_BYTES_PER_SECOND: size('0B', '100GiB').prefault('0B'),
  /**
   * A connection that is older than this, 10% more or less at random, moves: its client goes on over a new one, which a load
   * balancer may give to another replica. 0s: never.
   */
  FEED_MAX_CONNECTION_AGE: duration('0s', '168h')
    .refine((age) => age === 0 || age >= 1_000, 'must be 0s, or from 1s to 168h')
    .prefault('0s'),
  /** How long the watches and chats of such a connection take to end, one after another, and its uploads may take to finish. */
  FEED_MAX_CONNECTION_AGE_GRACE: duration('0s', '1h').prefault('30s'),
  /** After SIGTERM: how long to go on serving while not ready, so that load balancers notice. */
  FEED_DRAIN_DELAY: duration('0s', '10m').prefault('0s'),
  /** After that: how long uploads may take to finish. */
  FEED_DRAIN_TIMEOUT: duration('0s', '10m').prefault('20s'),
  /** After that, with jetstream: how long watches and chats take to end, one after another. Other engines end them at once. */
  FEED_DRAIN_SPREAD: duration('0s', '10m').prefault('5s'),
  /**
   * Calls are traced, and their spans sent here: the base URL of a collector of OpenTelemetry (OTLP over HTTP). Empty: no call
   * is traced.
   */
  FEED_OTLP_ENDPOINT: optionalUrl.prefault(''),
  /** How many of a hundred calls are traced whose callers do not say whether to (`traceparent`). */
  FEED_TRACES_PERCENT: count(0, 100).prefault('100'),
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

/** Returns a message without a password in the URLs of a value, or without a value that is a key and not the name of its file. */
function withoutSecret(message: string, value = ''): string {
  if (value.includes('-----BEGIN')) return message.replaceAll(value, () => '...');
  const safe = value.replace(/\/\/[^/,\s]*@/g, '//...@');
  return safe === value ? message : message.replaceAll(value, () => safe);
}

/**
 * Reads and checks the settings.
 *
 * @param toTerminal true if the log goes to a terminal
 * @throws ConfigError
 */
export function readConfig(env: NodeJS.ProcessEnv, toTerminal: boolean): Config {
  const names = Object.keys(env).filter((name) => name.startsWith('FEED_'));
  const problems = names
    .filter(
      (name) =>
        !(name in SETTINGS.shape) &&
        !FOREIGN.some((pattern) => pattern.test(`${name}=${env[name]}`)),
    )
    .map(
      (name) =>
        `${name} is not a setting. The settings are ${Object.keys(SETTINGS.shape).join(', ')}`,
    );

  const { data, error } = SETTINGS.safeParse(env);
  for (const { path, message } of error?.issues ?? []) {
    const name = String(path[0]);
    problems.push(withoutSecret(`${name}=${env[name]}: ${message}`, env[name]));
  }
  if (env.FEED_ENGINE === 'memory' && env.FEED_DURABILITY === 'fsync') {
    problems.push(
      'FEED_DURABILITY=fsync: the memory engine keeps nothing on disk; use FEED_ENGINE=lmdb',
    );
  }
  if (data?.FEED_ENGINE === 'jetstream' && data.FEED_NATS_SERVERS.length === 0) {
    problems.push(
      'FEED_ENGINE=jetstream needs FEED_NATS_SERVERS, such as nats://nats-0:4222,nats://nats-1:4222',
    );
  }
  if (data && (data.FEED_TLS_CERT === undefined) !== (data.FEED_TLS_KEY === undefined)) {
    const missing = data.FEED_TLS_CERT === undefined ? 'FEED_TLS_CERT' : 'FEED_TLS_KEY';
    problems.push(
      `FEED_TLS_CERT and FEED_TLS_KEY belong together, and ${missing} is not set: set both or neither`,
    );
  } else if (data?.FEED_TLS_CLIENT_CA !== undefined && data.FEED_TLS_CERT === undefined) {
    problems.push(
      'FEED_TLS_CLIENT_CA has clients show a certificate, which takes TLS: set FEED_TLS_CERT and FEED_TLS_KEY, too',
    );
  }
  if (data && (data.FEED_NATS_TLS_CERT === undefined) !== (data.FEED_NATS_TLS_KEY === undefined)) {
    problems.push('FEED_NATS_TLS_CERT and FEED_NATS_TLS_KEY belong together: set both or neither');
  }
  if (data)
    problems.push(
      ...authProblems(data, {
        hasTls: data.FEED_TLS_CERT !== undefined,
        demandsCertificate: data.FEED_TLS_CLIENT_CA !== undefined,
        isInsecureAllowed: data.FEED_INSECURE === 'allow',
      }),
    );
  if (data && data.FEED_STREAM_WINDOW > data.FEED_SESSION_WINDOW) {
    problems.push(
      'FEED_STREAM_WINDOW is larger than FEED_SESSION_WINDOW, which holds all streams of a connection',
    );
  }
  if (data && data.FEED_SESSION_WINDOW > data.FEED_RECEIVE_BYTES) {
    problems.push(
      'FEED_SESSION_WINDOW is larger than FEED_RECEIVE_BYTES, which holds what all connections send',
    );
  }
  if (data && data.FEED_UNSTORED_BYTES_PER_UPLOAD > data.FEED_UNSTORED_BYTES) {
    problems.push(
      'FEED_UNSTORED_BYTES_PER_UPLOAD is larger than FEED_UNSTORED_BYTES, which is for all uploads together',
    );
  }
  if (data && data.FEED_QUOTA_BYTES > 0 && data.FEED_RETENTION_MAX_BYTES > 0) {
    problems.push(
      'FEED_QUOTA_BYTES refuses uploads where FEED_RETENTION_MAX_BYTES removes the oldest events: set one of them',
    );
  }
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
    /** Where no other process serves the clients, there is none to spare. */
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

/** Where the keys are that sign tokens. Paths of files, but for the URL. */
type KeySource =
  { readonly url: URL; readonly ca?: string; readonly token?: string } | { readonly file: string };

function keysOf(settings: Settings): KeySource | undefined {
  const { FEED_JWT_PUBLIC_KEY: path, FEED_JWT_JWKS_URL: url } = settings;
  if (url) return { url, ca: settings.FEED_JWT_JWKS_CA, token: settings.FEED_JWT_JWKS_TOKEN };
  return path === undefined ? undefined : { file: path };
}
