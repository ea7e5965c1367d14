import { z } from 'zod';
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

/** The algorithms with which a token may be signed. HMAC and `none` are missing: who can check those can also sign. */
const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const;

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
  /** NATS servers of the jetstream engine: URLs, separated by commas. It needs at least one, and other engines take no setting of NATS. */
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
  /** Callers show tokens (JWT), which are checked by the public keys of this file: PEM, or a JSON Web Key Set. */
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
  /**
   * The same for all connections together. Beyond it, the connection that holds most is ended. The longest line of an event over HTTP
   * must fit into a quarter of it.
   */
  FEED_RECEIVE_BYTES: size('1MiB', '64GiB').prefault('192MiB'),
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
  /**
   * How many topics the watches of several topics, and how many rooms the chats of this process may have together. A pattern counts
   * once for each of its tokens.
   */
  FEED_MAX_SUBSCRIPTIONS: limit.prefault('1000000'),
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

/** Their values, once each has been checked by itself. */
export type Settings = z.output<typeof SETTINGS>;
