import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config/config.js';
import { unsafeSettings } from '../../src/config/exposure.js';

const FILE = fileURLToPath(import.meta.url);
const TLS = { FEED_TLS_CERT: FILE, FEED_TLS_KEY: FILE };

const unsafe = (settings: Record<string, string>): string[] =>
  unsafeSettings(readConfig(settings, false));

it.each([
  '127.0.0.1:50051',
  '127.1.2.3:0',
  '[::1]:50051',
  'localhost:50051',
  '[::ffff:127.0.0.1]:1',
])('%s is safe without TLS: only this machine reaches it', (address) =>
  expect(unsafe({ FEED_GRPC_ADDRESS: address, FEED_HTTP_ADDRESS: address })).toEqual([]),
);

it.each(['0.0.0.0:1', '10.0.0.1:1', '[::]:1', '[::ffff:10.0.0.1]:1', 'feed.example.org:1'])(
  '%s is not safe without TLS, and the setting that changes it is named',
  (address) => {
    for (const name of ['FEED_GRPC_ADDRESS', 'FEED_HTTP_ADDRESS']) {
      const [problem] = unsafe({ [name]: address });
      expect(problem).toContain(`${address} `);
      expect(problem).toContain('FEED_TLS_CERT');
      expect(problem).toContain('FEED_INSECURE=allow');
      expect(unsafe({ [name]: address, ...TLS, FEED_TLS_CLIENT_CA: FILE })).toEqual([]);
      expect(unsafe({ [name]: address, FEED_INSECURE: 'allow' })).toEqual([]);
    }
  },
);

it.each([
  ['client certificates', { FEED_TLS_CLIENT_CA: FILE }],
  ['tokens', { FEED_JWT_PUBLIC_KEY: FILE, FEED_JWT_ISSUER: 'i', FEED_JWT_AUDIENCE: 'feed' }],
])('no port is safe without authentication, and each is with %s', (_what, authentication) => {
  for (const name of ['FEED_GRPC_ADDRESS', 'FEED_HTTP_ADDRESS']) {
    const settings = { [name]: '0.0.0.0:1', ...TLS };
    const problems = unsafe(settings);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(/^0\.0\.0\.0:1 is without authentication.*FEED_TLS_CLIENT_CA/);
    expect(unsafe({ ...settings, ...authentication })).toEqual([]);
  }
});

it('a port for health alone is meant to be in plain text', () =>
  expect(unsafe({ FEED_HEALTH_ADDRESS: '0.0.0.0:50052' })).toEqual([]));

describe('NATS', () => {
  const jetstream = (servers: string, more: Record<string, string> = {}): string[] =>
    unsafe({ FEED_ENGINE: 'jetstream', FEED_NATS_SERVERS: servers, ...more });

  it.each(['nats://nats-0:4222', 'nats://127.0.0.1:4222,nats://10.0.0.1:4222', 'nats://[fd00::1]'])(
    'at %s is not safe without TLS, and the settings that change it are named',
    (servers) => {
      const problems = jetstream(servers);
      expect(problems).toHaveLength(1);
      expect(problems[0]).toMatch(/FEED_NATS_SERVERS=nats:.* without TLS.*FEED_NATS_TLS_CA/);
      expect(problems[0]).not.toContain('127.0.0.1');
      expect(jetstream(servers, { FEED_NATS_TLS_CA: FILE })).toEqual([]);
      expect(jetstream(servers, { FEED_NATS_TLS_CERT: FILE, FEED_NATS_TLS_KEY: FILE })).toEqual([]);
      expect(jetstream(servers, { FEED_INSECURE: 'allow' })).toEqual([]);
    },
  );

  it.each([
    'nats://127.0.0.1:4222',
    'nats://localhost:4222,nats://[::1]:4223',
    'tls://nats-0:4222',
  ])('at %s is safe', (servers) => expect(jetstream(servers)).toEqual([]));
});
