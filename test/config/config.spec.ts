import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { authProblems } from '../../src/config/auth.js';
import { ConfigError, readConfig } from '../../src/config/config.js';
import { SETTINGS } from '../../src/config/settings.js';

const NAMES = Object.keys(SETTINGS.shape);

/** A file that can be read. */
const FILE = fileURLToPath(import.meta.url);

/** What readConfig() says is wrong, or '' if nothing is. */
function problemOf(env: NodeJS.ProcessEnv): string {
  try {
    readConfig(env, false);
    return '';
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}

const PRIVATE = '-----BEGIN PRIVATE KEY-----';

it.each([
  ['FEED_NATS_SERVERS', 'nats://feed:secret@a:4222,nats://feed:p@secret@b:4222'],
  ['FEED_NATS_SERVERS', 'nats://feed:p/secret@a:4222'],
  ['FEED_NATS_SERVERS', 'nats://a:4222,nats://feed:p,secret@b:4222'],
  ['FEED_NATS_SERVERS', 'nats://feed:p?secret @a:4222'],
  ['FEED_NATS_SERVERS', 'feed:secret@a:4222'],
  ['FEED_NATS_MONITOR_URLS', 'http://feed:secret@a:8222'],
  ['FEED_JWT_JWKS_URL', 'http://issuer.example.com/jwks?key=secret'],
  ['FEED_OTLP_ENDPOINT', 'http://collector:4318/?key=secret'],
  ['FEED_JWT_JWKS_URL', 'https://feed:secret@issuer.example.com/jwks'],
  ['FEED_OTLP_ENDPOINT', 'http://feed:secret@collector:4318'],
  ['FEED_TLS_KEY', `${PRIVATE}\nsecret\n-----END PRIVATE KEY-----`],
  ['FEED_NATS_CREDENTIALS', '-----BEGIN USER NKEY SEED----- secret'],
  ['FEED_JWT_JWKS_URL', `${PRIVATE}\nsecret\n-----END PRIVATE KEY-----`],
  ['FEED_JWT_JWKS_URL', 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.secret'],
])('what is wrong with %s is said without a password or a key in it', (name, value) => {
  const problem = problemOf({ [name]: value });
  expect(problem).toContain(`${name}=`);
  expect(problem).toContain('must ');
  expect(problem).not.toContain('secret');
});

it('what is wrong is said with the rest of a URL, and with a path as it is', () => {
  expect(problemOf({ FEED_NATS_SERVERS: 'nats://feed:p/secret@a:4222' })).toContain(
    'FEED_NATS_SERVERS=nats://...@a:4222: ',
  );
  expect(problemOf({ FEED_OTLP_ENDPOINT: 'http://a:4318/?key=secret' })).toContain(
    'FEED_OTLP_ENDPOINT=http://a:4318/?...: ',
  );
  expect(problemOf({ FEED_TLS_KEY: '/no/such@file?' })).toContain('FEED_TLS_KEY=/no/such@file?: ');
});

/** What an operator may put in place of the path of its file. */
const SECRETS = {
  'a token': 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0',
  'a token with a slash in it': 'b2Y/c2VjcmV0+Zm9y/ZmVlZA==',
  'a key': `${PRIVATE}\nc2VjcmV0/c2VjcmV0\n-----END PRIVATE KEY-----`,
  'a key without its first line': '/c2VjcmV0\nc2VjcmV0',
  'a seed': 'SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4',
  'credentials in base 64': 'LS0tLS1CRUdJTiBOQVRTIFVTRVIgSldULS0tLS0=',
  'credentials of several lines':
    '-----BEGIN NATS USER JWT-----\neyJ0eXAi\n------END NATS USER JWT------',
};

it.each(Object.entries(SECRETS))('%s in place of the path of a file is not shown', (_, secret) => {
  const files = NAMES.filter((name) =>
    problemOf({ [name]: '/no/such/file' }).includes('must name a file'),
  );
  expect(files).toContain('FEED_JWT_JWKS_TOKEN');
  for (const name of files) {
    const problem = problemOf({ [name]: secret });
    expect(problem).toBe(
      `${name}=...: must name a file that Feed can read: ENOENT (no such file or directory). ` +
        'What does not begin with / or ./ is not shown, because it may be a token or a key',
    );
  }
});

it.each(['/no/such/file', './no/file', '../no file', '~/no/file'])(
  'the path of a file that can not be read is shown once: %s',
  (path) =>
    expect(problemOf({ FEED_TLS_KEY: path })).toBe(
      `FEED_TLS_KEY=${path}: must name a file that Feed can read: ENOENT (no such file or directory)`,
    ),
);

describe('without any setting', () => {
  it('the defaults hold', () => {
    expect(readConfig({}, false)).toEqual({
      grpcAddress: { host: '127.0.0.1', port: 50051, text: '127.0.0.1:50051' },
      httpAddress: { host: '127.0.0.1', port: 8080, text: '127.0.0.1:8080' },
      httpOrigins: [],
      hasConsole: true,
      healthAddress: undefined,
      metricsAddress: undefined,
      metricsTopics: [],
      tls: undefined,
      isInsecureAllowed: false,
      dataDir: './data',
      engine: 'lmdb',
      durability: 'fsync',
      maxEventBytes: 1024 * 1024,
      dedupWindow: 120_000,
      dedupIds: 1_000_000,
      retention: { maxAge: 0, maxBytes: 0, topicMaxBytes: 0, quotaBytes: 0 },
      nats: {
        servers: [],
        stream: 'FEED',
        replicas: 3,
        credentials: undefined,
        tlsCa: undefined,
        tlsCert: undefined,
        tlsKey: undefined,
        monitorUrls: [],
        systemCredentials: undefined,
        isFlushVouched: false,
        patience: 20_000,
      },
      jwt: undefined,
      policyFile: undefined,
      streamWindow: 1024 * 1024,
      sessionWindow: 16 * 1024 * 1024,
      receiveBytes: 192 * 1024 * 1024,
      keepaliveTime: 30_000,
      keepaliveTimeout: 10_000,
      resetBurst: 20_000,
      maxCalls: {
        watches: { inAll: 100_000, perConnection: 10_000, perPrincipal: 50_000 },
        uploads: { inAll: 20_000, perConnection: 2_000, perPrincipal: 10_000 },
        chats: { inAll: 20_000, perConnection: 2_000, perPrincipal: 10_000 },
      },
      maxRooms: 100_000,
      maxSubscriptions: 1_000_000,
      maxTopics: 1_000_000,
      maxMetadataBytes: 64 * 1024,
      unstored: { perUpload: 1024 * 1024, inAll: 16 * 1024 * 1024 },
      maxConnections: Infinity,
      uploadRate: { events: 0, bytes: 0 },
      maxConnectionAge: 0,
      maxConnectionAgeGrace: 30_000,
      drainDelay: 0,
      drainTimeout: 20_000,
      drainSpread: 0,
      traces: undefined,
      logLevel: 'info',
      logFormat: 'json',
    });
  });

  it('the log is for people on a terminal, and JSON elsewhere', () => {
    expect(readConfig({}, true).logFormat).toBe('pretty');
    expect(readConfig({}, false).logFormat).toBe('json');
    expect(readConfig({ FEED_LOG_FORMAT: 'json' }, true).logFormat).toBe('json');
  });
});

describe('settings', () => {
  it('are read', () => {
    expect(
      readConfig(
        {
          FEED_GRPC_ADDRESS: '[::1]:1234',
          FEED_HTTP_ADDRESS: 'feed.example.org:0',
          FEED_HTTP_ORIGINS: 'https://shop.example.com, http://localhost:5173',
          FEED_CONSOLE: 'off',
          FEED_HEALTH_ADDRESS: '0.0.0.0:50052',
          FEED_METRICS_ADDRESS: '0.0.0.0:9464',
          FEED_METRICS_TOPICS: 'orders, users,orders',
          FEED_TLS_CERT: FILE,
          FEED_TLS_KEY: FILE,
          FEED_TLS_CLIENT_CA: FILE,
          FEED_INSECURE: 'allow',
          FEED_DATA_DIR: '/data',
          FEED_ENGINE: 'jetstream',
          FEED_DURABILITY: 'none',
          FEED_MAX_EVENT_BYTES: '2000000B',
          FEED_DEDUP_WINDOW: '10m',
          FEED_DEDUP_IDS: '5000',
          FEED_RETENTION_MAX_AGE: '168h',
          FEED_RETENTION_MAX_BYTES: '20GiB',
          FEED_RETENTION_TOPIC_MAX_BYTES: '1GiB',
          FEED_QUOTA_BYTES: '0B',
          FEED_NATS_SERVERS: 'nats://a:4222, tls://b:4222',
          FEED_NATS_STREAM: 'EVENTS',
          FEED_NATS_REPLICAS: '5',
          FEED_NATS_MONITOR_URLS: 'http://a:8222',
          FEED_NATS_FLUSH: 'vouched',
          FEED_NATS_PATIENCE: '3s',
          FEED_JWT_JWKS_URL: 'https://issuer.example.com/jwks',
          FEED_JWT_JWKS_CA: 'package.json',
          FEED_JWT_JWKS_TOKEN: 'README.md',
          FEED_JWT_ISSUER: 'https://issuer.example.com',
          FEED_JWT_AUDIENCE: 'feed',
          FEED_JWT_ALGORITHMS: 'ES384, PS256',
          FEED_JWT_CLOCK_TOLERANCE: '1m',
          FEED_POLICY_FILE: 'CHANGELOG.md',
          FEED_STREAM_WINDOW: '64KiB',
          FEED_SESSION_WINDOW: '256MiB',
          FEED_RECEIVE_BYTES: '64GiB',
          FEED_KEEPALIVE_TIME: '700ms',
          FEED_KEEPALIVE_TIMEOUT: '1h',
          FEED_RESET_BURST: '100',
          FEED_MAX_WATCHES: '11',
          FEED_MAX_WATCHES_PER_CONNECTION: '12',
          FEED_MAX_WATCHES_PER_PRINCIPAL: '13',
          FEED_MAX_UPLOADS: '14',
          FEED_MAX_UPLOADS_PER_CONNECTION: '15',
          FEED_MAX_UPLOADS_PER_PRINCIPAL: '16',
          FEED_MAX_CHATS: '17',
          FEED_MAX_CHATS_PER_CONNECTION: '18',
          FEED_MAX_CHATS_PER_PRINCIPAL: '19',
          FEED_MAX_ROOMS: '20',
          FEED_MAX_SUBSCRIPTIONS: '24',
          FEED_MAX_TOPICS: '23',
          FEED_MAX_CONNECTIONS: '21',
          FEED_MAX_METADATA_BYTES: '8KiB',
          FEED_UNSTORED_BYTES_PER_UPLOAD: '64MiB',
          FEED_UNSTORED_BYTES: '1GiB',
          FEED_UPLOAD_EVENTS_PER_SECOND: '22',
          FEED_UPLOAD_BYTES_PER_SECOND: '1MiB',
          FEED_MAX_CONNECTION_AGE: '168h',
          FEED_MAX_CONNECTION_AGE_GRACE: '1h',
          FEED_DRAIN_DELAY: '1500ms',
          FEED_DRAIN_TIMEOUT: '10m',
          FEED_DRAIN_SPREAD: '10m',
          FEED_OTLP_ENDPOINT: 'http://collector:4318',
          FEED_TRACES_PERCENT: '10',
          FEED_LOG_LEVEL: 'warn',
          FEED_LOG_FORMAT: 'pretty',
        },
        false,
      ),
    ).toEqual({
      grpcAddress: { host: '::1', port: 1234, text: '[::1]:1234' },
      httpAddress: { host: 'feed.example.org', port: 0, text: 'feed.example.org:0' },
      httpOrigins: ['https://shop.example.com', 'http://localhost:5173'],
      hasConsole: false,
      healthAddress: { host: '0.0.0.0', port: 50052, text: '0.0.0.0:50052' },
      metricsAddress: { host: '0.0.0.0', port: 9464, text: '0.0.0.0:9464' },
      metricsTopics: ['orders', 'users'],
      tls: { cert: FILE, key: FILE, clientCa: FILE },
      isInsecureAllowed: true,
      dataDir: '/data',
      engine: 'jetstream',
      durability: 'none',
      maxEventBytes: 2_000_000,
      dedupWindow: 600_000,
      dedupIds: 5_000,
      retention: {
        maxAge: 604_800_000,
        maxBytes: 20 * 2 ** 30,
        topicMaxBytes: 2 ** 30,
        quotaBytes: 0,
      },
      nats: {
        servers: ['nats://a:4222', 'tls://b:4222'],
        stream: 'EVENTS',
        replicas: 5,
        credentials: undefined,
        tlsCa: undefined,
        tlsCert: undefined,
        tlsKey: undefined,
        monitorUrls: ['http://a:8222'],
        systemCredentials: undefined,
        isFlushVouched: true,
        patience: 3_000,
      },
      jwt: {
        keys: {
          url: new URL('https://issuer.example.com/jwks'),
          ca: 'package.json',
          token: 'README.md',
        },
        issuer: 'https://issuer.example.com',
        audience: 'feed',
        algorithms: ['ES384', 'PS256'],
        clockTolerance: 60_000,
      },
      policyFile: 'CHANGELOG.md',
      streamWindow: 64 * 1024,
      sessionWindow: 256 * 1024 * 1024,
      receiveBytes: 64 * 2 ** 30,
      keepaliveTime: 700,
      keepaliveTimeout: 3_600_000,
      resetBurst: 100,
      maxCalls: {
        watches: { inAll: 11, perConnection: 12, perPrincipal: 13 },
        uploads: { inAll: 14, perConnection: 15, perPrincipal: 16 },
        chats: { inAll: 17, perConnection: 18, perPrincipal: 19 },
      },
      maxRooms: 20,
      maxSubscriptions: 24,
      maxTopics: 23,
      maxMetadataBytes: 8192,
      unstored: { perUpload: 64 * 1024 * 1024, inAll: 1024 * 1024 * 1024 },
      maxConnections: 21,
      uploadRate: { events: 22, bytes: 1_048_576 },
      maxConnectionAge: 604_800_000,
      maxConnectionAgeGrace: 3_600_000,
      drainDelay: 1_500,
      drainTimeout: 600_000,
      drainSpread: 600_000,
      traces: { endpoint: new URL('http://collector:4318'), percent: 10 },
      logLevel: 'warn',
      logFormat: 'pretty',
    });
  });

  it('are frozen', () => {
    const config = readConfig({}, false);
    expect(() => Object.assign(config, { dataDir: '/elsewhere' })).toThrow(TypeError);
    expect(config.dataDir).toBe('./data');
  });

  it('refuse what is over a limit, or remove it: not both', () => {
    const quota = { FEED_QUOTA_BYTES: '7GiB' };
    expect(readConfig(quota, false).retention.quotaBytes).toBe(7 * 2 ** 30);
    expect(problemOf({ ...quota, FEED_RETENTION_TOPIC_MAX_BYTES: '1GiB' })).toBe('');
    expect(problemOf({ ...quota, FEED_RETENTION_MAX_BYTES: '7GiB' })).toMatch(
      /FEED_QUOTA_BYTES.*FEED_RETENTION_MAX_BYTES/,
    );
  });

  it('of a part are no larger than those of the whole', () => {
    const session = { FEED_SESSION_WINDOW: '2MiB', FEED_MAX_EVENT_BYTES: '1KiB' };
    expect(problemOf({ ...session, FEED_STREAM_WINDOW: '2MiB', FEED_RECEIVE_BYTES: '2MiB' })).toBe(
      '',
    );
    expect(problemOf({ ...session, FEED_STREAM_WINDOW: '3MiB' })).toMatch(
      /FEED_STREAM_WINDOW is larger than FEED_SESSION_WINDOW/,
    );
    expect(problemOf({ ...session, FEED_RECEIVE_BYTES: '1MiB' })).toMatch(
      /FEED_SESSION_WINDOW is larger than FEED_RECEIVE_BYTES/,
    );
    expect(problemOf({ FEED_UNSTORED_BYTES_PER_UPLOAD: '17MiB' })).toMatch(
      /FEED_UNSTORED_BYTES_PER_UPLOAD is larger than FEED_UNSTORED_BYTES/,
    );
  });

  it('have room for an event of the size that is allowed, however it is written', () => {
    const problem = problemOf({ FEED_RECEIVE_BYTES: '24MiB' });
    expect(problem).toMatch(/^FEED_RECEIVE_BYTES is too small for FEED_MAX_EVENT_BYTES: .*25MiB/);
    expect(problemOf({ FEED_RECEIVE_BYTES: '25MiB' })).toBe('');
    const large = { FEED_MAX_EVENT_BYTES: '3MiB' };
    expect(problemOf({ ...large, FEED_RECEIVE_BYTES: '72MiB' })).toContain('73MiB');
    expect(problemOf({ ...large, FEED_RECEIVE_BYTES: '73MiB' })).toBe('');
  });

  it('of NATS are for jetstream alone: with another engine, each replica would have a log of its own', () => {
    const jetstream = { FEED_ENGINE: 'jetstream', FEED_NATS_SERVERS: 'nats://a:4222' };
    for (const [name, value] of [
      ['FEED_NATS_SERVERS', 'nats://a:4222'],
      ['FEED_NATS_STREAM', 'EVENTS'],
      ['FEED_NATS_REPLICAS', '1'],
      ['FEED_NATS_CREDENTIALS', FILE],
      ['FEED_NATS_TLS_CA', FILE],
      ['FEED_NATS_MONITOR_URLS', 'http://a:8222'],
      ['FEED_NATS_SYSTEM_CREDENTIALS', FILE],
      ['FEED_NATS_FLUSH', 'vouched'],
      ['FEED_NATS_PATIENCE', '1s'],
    ]) {
      expect(problemOf({ ...jetstream, [name]: value })).toBe('');
      for (const engine of ['lmdb', 'memory'])
        expect(problemOf({ FEED_ENGINE: engine, [name]: value })).toMatch(
          new RegExp(`^${name} .*FEED_ENGINE=${engine}.*FEED_ENGINE=jetstream`),
        );
    }
    const both = { FEED_NATS_SERVERS: 'nats://a:4222', FEED_NATS_FLUSH: 'vouched' };
    expect(problemOf(both)).toMatch(/^FEED_NATS_SERVERS and FEED_NATS_FLUSH /);
    expect(problemOf({ FEED_NATS_SERVERS: '', FEED_NATS_CREDENTIALS: '' })).toBe('');
  });

  it('of a drain spread ends only where other replicas serve the clients', () => {
    const jetstream = { FEED_ENGINE: 'jetstream', FEED_NATS_SERVERS: 'nats://a' };
    expect(readConfig(jetstream, false).drainSpread).toBe(5_000);
    expect(readConfig({ FEED_DRAIN_SPREAD: '10s' }, false).drainSpread).toBe(0);
  });

  it('of TLS are a whole pair, and authorities of clients need one', () => {
    expect(problemOf({ FEED_TLS_CERT: FILE, FEED_TLS_KEY: FILE })).toBe('');
    expect(problemOf({ FEED_TLS_CERT: FILE })).toMatch(/FEED_TLS_KEY is not set/);
    expect(problemOf({ FEED_TLS_KEY: FILE })).toMatch(/FEED_TLS_CERT is not set/);
    expect(problemOf({ FEED_TLS_CLIENT_CA: FILE })).toMatch(
      /FEED_TLS_CLIENT_CA .*FEED_TLS_CERT and FEED_TLS_KEY/,
    );
  });

  describe('of tokens', () => {
    const tokens = {
      FEED_JWT_PUBLIC_KEY: 'package.json',
      FEED_JWT_ISSUER: 'https://issuer.example.com',
      FEED_JWT_AUDIENCE: 'feed',
    };
    const { FEED_JWT_PUBLIC_KEY: _, ...withoutKeys } = tokens;

    it('are whole, or there are none', () => {
      expect(problemOf(tokens)).toBe('');
      expect(problemOf({ ...tokens, FEED_POLICY_FILE: 'package.json' })).toBe('');
      for (const name of ['FEED_JWT_ISSUER', 'FEED_JWT_AUDIENCE'])
        expect(problemOf({ ...tokens, [name]: '' })).toContain('tokens need FEED_JWT_ISSUER and');
      expect(problemOf(withoutKeys)).toContain('check nothing without FEED_JWT_PUBLIC_KEY');
      const url = { FEED_JWT_JWKS_URL: 'http://[::1]:8080/jwks' };
      expect(problemOf({ ...withoutKeys, ...url })).toBe('');
      expect(problemOf({ ...tokens, ...url })).toContain('set one');
      for (const name of ['FEED_JWT_JWKS_CA', 'FEED_JWT_JWKS_TOKEN'])
        expect(problemOf({ ...tokens, [name]: 'package.json' })).toContain(`${name} is for`);
      expect(problemOf({ FEED_POLICY_FILE: 'package.json' })).toContain('callers that are known');
    });

    it('do not travel in the clear, except on this machine', () => {
      for (const name of ['FEED_GRPC_ADDRESS', 'FEED_HTTP_ADDRESS']) {
        for (const host of ['127.0.0.1', '127.8.9.1', '[::1]', 'localhost'])
          expect(problemOf({ ...tokens, [name]: `${host}:1` })).toBe('');
        for (const host of ['0.0.0.0', '[::]', '10.0.0.1', 'feed.example.com', '127.0.0.1.evil'])
          expect(problemOf({ ...tokens, [name]: `${host}:1` })).toMatch(
            new RegExp(`^${name}=.*: without TLS`),
          );
      }
    });

    it('may travel so with TLS, or if the operator says so', () => {
      const settings = SETTINGS.parse({});
      const open = {
        ...settings,
        FEED_GRPC_ADDRESS: { host: '0.0.0.0', port: 1, text: '0.0.0.0:1' },
        FEED_JWT_PUBLIC_KEY: 'key',
        FEED_JWT_ISSUER: 'issuer',
        FEED_JWT_AUDIENCE: 'feed',
      };
      for (const one of [open, { ...open, FEED_HTTP_ADDRESS: open.FEED_GRPC_ADDRESS }]) {
        expect(authProblems(one)).toHaveLength(one === open ? 1 : 2);
        expect(authProblems({ ...one, FEED_TLS_CERT: 'cert' })).toEqual([]);
        expect(authProblems({ ...one, FEED_INSECURE: 'allow' })).toEqual([]);
      }
      const policy = { ...settings, FEED_POLICY_FILE: 'policy' };
      expect(authProblems(policy)).toHaveLength(1);
      expect(authProblems({ ...policy, FEED_TLS_CLIENT_CA: 'ca' })).toEqual([]);
    });
  });

  it('of memory keep nothing on disk, and do not pretend to', () => {
    expect(readConfig({ FEED_ENGINE: 'memory' }, false).durability).toBe('none');
    expect(problemOf({ FEED_ENGINE: 'memory', FEED_DURABILITY: 'none' })).toBe('');
    expect(problemOf({ FEED_ENGINE: 'memory', FEED_DURABILITY: 'fsync' })).toMatch(
      /FEED_DURABILITY=fsync: .*FEED_ENGINE/,
    );
  });
});

describe('a value that cannot be used', () => {
  const bad: Record<string, readonly string[]> = {
    FEED_GRPC_ADDRESS: [
      '',
      '50051',
      ':50051',
      'host',
      'host:',
      'host:65536',
      'a:b:1',
      '::1:1',
      'a b:1',
    ],
    FEED_HTTP_ADDRESS: ['', '8080', '[::1]', '[x]:1', 'host:-1', 'http://host:1', 'host:1/'],
    FEED_HTTP_ORIGINS: [
      'shop.example.com',
      'https://shop.example.com/',
      'https://shop.example.com:443',
      'https://a:b@shop.example.com',
      'https://*.example.com',
      '*',
      'null',
      'ftp://shop.example.com',
      'https://a,,https://b',
    ],
    FEED_CONSOLE: ['', 'yes', 'true'],
    FEED_HEALTH_ADDRESS: ['50052', 'host:65536', 'http://host:1'],
    FEED_METRICS_ADDRESS: ['9464', 'host:65536', 'http://host:1'],
    FEED_METRICS_TOPICS: ['orders.>', 'a b', 'a,,b', 'x'.repeat(201), Array(101).fill('a').join()],
    FEED_TLS_CERT: ['/no/such/file'],
    FEED_TLS_KEY: ['/no/such/file'],
    FEED_TLS_CLIENT_CA: ['/no/such/file'],
    FEED_INSECURE: ['', 'yes', 'true'],
    FEED_DATA_DIR: [''],
    FEED_ENGINE: ['', 'LMDB', 'postgres'],
    FEED_DURABILITY: ['', 'memory', 'FSYNC'],
    FEED_MAX_EVENT_BYTES: [
      '',
      '1048576',
      '1mb',
      '1MB',
      '1 MiB',
      '1023B',
      '4MiB',
      '-1MiB',
      '1.5MiB',
      '1s',
    ],
    FEED_DEDUP_WINDOW: ['', '2', '25h', '-1s'],
    FEED_DEDUP_IDS: ['', '-1', '1.5', '1e6', '100000001', 'many'],
    FEED_RETENTION_MAX_AGE: ['', '7d', '-1h'],
    FEED_RETENTION_MAX_BYTES: ['', '1TB', '0', '-1GiB'],
    FEED_RETENTION_TOPIC_MAX_BYTES: ['', 'all'],
    FEED_QUOTA_BYTES: ['', '1TB', '0'],
    FEED_NATS_SERVERS: ['nats-0:4222', 'http://nats', 'nats://a,,nats://b', 'nats', 'nats://b?a=b'],
    FEED_NATS_STREAM: ['', 'a.b', 'a b', 'x'.repeat(33), '*'],
    FEED_NATS_REPLICAS: ['', '2', '0', 'three'],
    FEED_NATS_CREDENTIALS: ['/no/such/file'],
    FEED_NATS_TLS_CA: ['/no/such/file'],
    FEED_NATS_TLS_CERT: ['/no/such/file'],
    FEED_NATS_TLS_KEY: ['/no/such/file'],
    FEED_NATS_MONITOR_URLS: ['nats://nats-0:8222', 'nats-0:8222', 'http://b?a=b'],
    FEED_NATS_SYSTEM_CREDENTIALS: ['/no/such/file'],
    FEED_NATS_FLUSH: ['', 'yes', 'true'],
    FEED_NATS_PATIENCE: ['', '0s', '20', '11m'],
    FEED_JWT_PUBLIC_KEY: ['/no/such/file'],
    FEED_JWT_JWKS_URL: [
      'issuer',
      'http://issuer.example.com',
      'file:///jwks',
      'http://127.1.1.1.evil',
    ],
    FEED_JWT_JWKS_CA: ['/no/such/file'],
    FEED_JWT_JWKS_TOKEN: ['/no/such/file'],
    FEED_JWT_ALGORITHMS: ['', 'none', 'HS256', 'RS256,HS256', 'RS256,,ES256', 'rs256'],
    FEED_JWT_CLOCK_TOLERANCE: ['', '3', '6m'],
    FEED_POLICY_FILE: ['/no/such/file'],
    FEED_STREAM_WINDOW: ['', '0KiB', '63KiB', '65MiB', '64'],
    FEED_SESSION_WINDOW: ['', '127KiB', '257MiB', '1GiB'],
    FEED_RECEIVE_BYTES: ['', '1023KiB', '65GiB', '256'],
    FEED_KEEPALIVE_TIME: ['', '30', '0s', '99ms', '2h'],
    FEED_KEEPALIVE_TIMEOUT: ['', '10', '0s', '99ms', '2h'],
    FEED_RESET_BURST: ['', '99', '-1', '1e4', '20000000'],
    FEED_MAX_WATCHES: ['', '0', '-1', '1e4'],
    FEED_MAX_WATCHES_PER_CONNECTION: ['', '0', '-1', '1e4'],
    FEED_MAX_WATCHES_PER_PRINCIPAL: ['', '0', '-1', '1e4'],
    FEED_MAX_UPLOADS: ['', '0', '-1', '1e4'],
    FEED_MAX_UPLOADS_PER_CONNECTION: ['', '0', '-1', '1e4'],
    FEED_MAX_UPLOADS_PER_PRINCIPAL: ['', '0', '-1', '1e4'],
    FEED_MAX_CHATS: ['', '0', '-1', '1e4'],
    FEED_MAX_CHATS_PER_CONNECTION: ['', '0', '-1', '1e4'],
    FEED_MAX_CHATS_PER_PRINCIPAL: ['', '0', '-1', '1e4'],
    FEED_MAX_ROOMS: ['', '0', '10000001'],
    FEED_MAX_SUBSCRIPTIONS: ['', '0', '10000001'],
    FEED_MAX_TOPICS: ['', '0', '100000001'],
    FEED_MAX_CONNECTIONS: ['', '-1', '10000001'],
    FEED_MAX_METADATA_BYTES: ['', '8000B', '2MiB', '64'],
    FEED_UNSTORED_BYTES_PER_UPLOAD: ['', '63KiB', '65MiB', '64'],
    FEED_UNSTORED_BYTES: ['', '1023KiB', '2GiB', '16'],
    FEED_UPLOAD_EVENTS_PER_SECOND: ['', '-1', '1000000001'],
    FEED_UPLOAD_BYTES_PER_SECOND: ['', '1', '101GiB'],
    FEED_MAX_CONNECTION_AGE: ['', '0', '1ms', '999ms', '169h'],
    FEED_MAX_CONNECTION_AGE_GRACE: ['', '30', '2h'],
    FEED_DRAIN_DELAY: ['', '0', '10', '-1s', '11m', '1h', '1.5s', '5 s', '1KiB', 's', '1sec'],
    FEED_DRAIN_TIMEOUT: ['', '20', '601s', 'forever', '999999999999999999999s'],
    FEED_DRAIN_SPREAD: ['', '5', '601s'],
    FEED_OTLP_ENDPOINT: ['collector:4318', 'grpc://collector:4317', 'http://collector?a=b'],
    FEED_TRACES_PERCENT: ['', '-1', '101', '0.5'],
    FEED_LOG_LEVEL: ['', 'INFO', 'verbose'],
    FEED_LOG_FORMAT: ['', 'text'],
  };

  /** Any text will do for these. */
  const TEXTS = ['FEED_JWT_ISSUER', 'FEED_JWT_AUDIENCE'];

  it('is tried for every setting', () =>
    expect([...Object.keys(bad), ...TEXTS].toSorted()).toEqual(NAMES.toSorted()));

  it.each(Object.entries(bad))('of %s stops the start, and is named', (name, values) => {
    for (const value of values) {
      // The message leaves out each part that may be a password or a key.
      const shown = value.replace('a:b@', '...@').replace('?a=b', '?...');
      expect(problemOf({ [name]: value })).toContain(`${name}=${shown}: `);
    }
  });

  it('is named together with all others', () => {
    const problem = problemOf({
      FEED_ENGINE: 'postgres',
      FEED_DRAIN_DELAY: 'soon',
      FEED_TYPO: '1',
      FEED_LOG_LEVEL: 'info',
    });
    for (const name of ['FEED_ENGINE=postgres', 'FEED_DRAIN_DELAY=soon', 'FEED_TYPO']) {
      expect(problem).toContain(name);
    }
    expect(problem).not.toContain('FEED_LOG_LEVEL=');
  });

  it('is any number whose unit is not one, whatever JavaScript knows by that name', () => {
    const units = fc.oneof(
      fc.string({ maxLength: 5 }),
      fc.constantFrom('constructor', 'toString', 'valueOf', 'hasOwnProperty'),
    );
    fc.assert(
      fc.property(fc.nat(100), units, (number, unit) => {
        fc.pre(!/^\d*(ms|s|m|h)$/.test(unit));
        expect(problemOf({ FEED_DRAIN_DELAY: `${number}${unit}` })).toContain('FEED_DRAIN_DELAY');
      }),
      { numRuns: 300 },
    );
  });

  it('never comes through: every quantity taken is what was written', () => {
    const quantities = fc.tuple(fc.nat(700_000), fc.constantFrom('ms', 's', 'm', 'h'));
    const scale = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
    fc.assert(
      fc.property(quantities, ([number, unit]) => {
        const wanted = number * scale[unit];
        const env = { FEED_DRAIN_TIMEOUT: `${number}${unit}` };
        const taken = problemOf(env) === '' ? readConfig(env, false).drainTimeout : 'refused';
        expect(taken).toBe(wanted > 600_000 ? 'refused' : wanted);
      }),
    );
  });
});

describe('a name that is not a setting', () => {
  it.each(['FEED_', 'FEED_toString', 'FEED_A', 'FEED_BRAND_NEW_KNOB'])(
    'stops the start, and is named, with all settings: %s',
    (name) => {
      const problem = problemOf({ [name]: 'x' });
      expect(problem).toContain(`${name} is not a setting\n`);
      for (const setting of NAMES) expect(problem).toContain(setting);
    },
  );

  it.each([
    ['FEED_GRPC_ADRESS', 'FEED_GRPC_ADDRESS'],
    ['FEED_LOGLEVEL', 'FEED_LOG_LEVEL'],
    ['FEED_data_dir', 'FEED_DATA_DIR'],
    ['FEED_DRAIN_TIMEOUTS', 'FEED_DRAIN_TIMEOUT'],
    ['FEED_LISTN_ADDRESS', 'FEED_GRPC_ADDRESS or FEED_HTTP_ADDRESS'],
  ])('that is like a setting stops the start, and that is named alone: %s', (name, meant) => {
    expect(problemOf({ [name]: 'x' })).toBe(`${name} is not a setting: did you mean ${meant}?`);
  });

  it('is like each setting whose name lacks a letter', () => {
    const lacking = NAMES.map((name) => [name, name.slice(0, -2) + name.slice(-1)] as const);
    for (const [name, typed] of lacking)
      if (!NAMES.includes(typed)) expect(problemOf({ [typed]: 'x' })).toContain(name);
  });

  it('is one of several: what the settings are is said once, after all that is wrong', () => {
    const env = { FEED_A: 'x', FEED_B: 'x', FEED_ENGINE: 'postgres' };
    const lines = problemOf(env).split('\n');
    expect(lines.slice(0, 2)).toEqual(['FEED_A is not a setting', 'FEED_B is not a setting']);
    expect(lines[2]).toMatch(/^FEED_ENGINE=postgres: /);
    expect(lines.slice(3)).toEqual([`The settings are ${NAMES.join(', ')}`]);
  });

  it.each(['FEED_PORT', 'FEED_GRPC_PORT', 'FEED_HTTP_PORT'])(
    'stops the start where it looks like a port to listen on: %s',
    (name) => {
      // Kubernetes gives such names only values like tcp://10.0.0.1:50051.
      expect(problemOf({ [name]: '50051' })).toContain(name);
    },
  );

  it.each(['PATH', 'HOME', 'NODE_ENV', 'FEEDER', 'MY_FEED_ENGINE', 'feed_engine'])(
    "is nobody's business without the prefix: %s",
    (name) => {
      expect(problemOf({ [name]: 'x' })).toBe('');
    },
  );
});

describe('what others put into the environment', () => {
  /** https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables */
  const injected = (service: string, port: number, portName: string): NodeJS.ProcessEnv => {
    const prefix = service.toUpperCase().replaceAll('-', '_');
    const url = `tcp://10.0.0.1:${port}`;
    return {
      [`${prefix}_SERVICE_HOST`]: '10.0.0.1',
      [`${prefix}_SERVICE_PORT`]: String(port),
      [`${prefix}_SERVICE_PORT_${portName}`]: String(port),
      [`${prefix}_PORT`]: url,
      [`${prefix}_PORT_${port}_TCP`]: url,
      [`${prefix}_PORT_${port}_TCP_PROTO`]: 'tcp',
      [`${prefix}_PORT_${port}_TCP_PORT`]: String(port),
      [`${prefix}_PORT_${port}_TCP_ADDR`]: '10.0.0.1',
    };
  };

  it.each(['feed', 'feed-headless', 'feed-x', 'feed-2', 'feed-port', 'feed-service'])(
    'is let through: Kubernetes, for a Service called %s',
    (service) => {
      const env = {
        ...injected(service, 50051, 'GRPC'),
        ...injected(service, 8080, 'HTTP_PROBES'),
      };
      for (const [name, value] of Object.entries(env)) {
        expect(`${name}: ${problemOf({ [name]: value })}`).toBe(`${name}: `);
      }
      expect(readConfig({ ...env, FEED_ENGINE: 'memory' }, false).engine).toBe('memory');
    },
  );

  const CLIENT = [
    'FEED_ADDRESS',
    'FEED_TOKEN',
    'FEED_TOKEN_FILE',
    'FEED_CLIENT_TLS_CA',
    'FEED_CLIENT_TLS_CERT',
    'FEED_CLIENT_TLS_KEY',
    'FEED_TO_TOKEN',
    'FEED_TO_TOKEN_FILE',
    'FEED_TO_CLIENT_TLS_CA',
    'FEED_TO_CLIENT_TLS_CERT',
    'FEED_TO_CLIENT_TLS_KEY',
  ];

  it.each(CLIENT)("is let through: the client's %s", (name) => {
    expect(problemOf({ [name]: 'anything' })).toBe('');
  });

  it.each(CLIENT)("is let through only by the client's exact name: %s", (name) => {
    expect(problemOf({ [`${name}S`]: 'anything' })).toContain(`${name}S is not a setting`);
  });
});
