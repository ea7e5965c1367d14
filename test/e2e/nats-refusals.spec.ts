import { describe, expect, onTestFinished, test } from 'vitest';
import { SetupError } from '../../src/nats/setup-error.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { runService, ServiceProcess } from '../support/service.js';
import { until } from '../support/wait.js';

type Settings = Record<string, string>;

/** Starts servers that run until the test ends. */
async function servers(
  size: number,
  options: Parameters<typeof NatsServer.start>[1],
): Promise<NatsServer[]> {
  const started = await NatsServer.start(size, options);
  onTestFinished(async () => void (await Promise.all(started.map((each) => each.remove()))));
  return started;
}

/** Returns the message of a start that has to fail. */
async function refusal(settings: Settings): Promise<string> {
  const error = await runService(settings).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SetupError);
  return (error as SetupError).message;
}

/** Makes a stream by hand, as an operator or another program does. */
async function makeStream(server: NatsServer, name: string, subjects: string[]): Promise<void> {
  const connection = await server.connect();
  const config = JSON.stringify({ name, subjects, storage: 'memory' });
  const answer = await connection.request(`$JS.API.STREAM.CREATE.${name}`, config, {
    timeout: 30_000,
  });
  expect(answer.json()).not.toHaveProperty('error');
  await connection.close();
}

const accountWith = (limits: string): string => `accounts {
  FEED { jetstream: ${limits}, users: [{user: feed, password: feed}] }
}
no_auth_user: feed`;

describe.skipIf(!NATS_SERVER)(
  'a start ends where waiting does not help, and says what to set',
  () => {
    test('servers with too little memory for the rooms', async () => {
      const started = await servers(1, { limits: 'max_mem: 32MB, max_file: 1GB', jetstream: '' });
      const service = ServiceProcess.spawn(jetstreamSettings(started));
      expect(await service.ended()).toEqual({ code: 78, signal: null });
      expect(service.output.join('')).toMatch(
        /_ROOMS, which carries .* 64 MiB of memory .* can't be made or used: .*: raise max_memory_store/,
      );
    });

    test.each<[string, Parameters<typeof NatsServer.start>[1], Settings, RegExp]>([
      [
        'servers with less room than the limit of the stream',
        { limits: 'max_mem: 1GB, max_file: 100MB' },
        { FEED_RETENTION_MAX_BYTES: '1GiB' },
        /can't be made: .*: lower FEED_RETENTION_MAX_BYTES .* or raise max_file_store/,
      ],
      [
        'an account without JetStream',
        { access: accountWith('disabled') },
        {},
        /enable JetStream for the account/,
      ],
      [
        'an account with too little room for the stream',
        { access: accountWith('{ max_mem: 1GB, max_file: 100MB }') },
        { FEED_RETENTION_MAX_BYTES: '1GiB' },
        /lower FEED_RETENTION_MAX_BYTES .*limits of Feed's account/,
      ],
      [
        'an account with too little memory for the rooms',
        { access: accountWith('{ max_mem: 10MB, max_file: 1GB }') },
        {},
        /_ROOMS.*limits of Feed's account/,
      ],
      [
        'an account that has room for one stream',
        { access: accountWith('{ max_streams: 1, max_mem: 1GB, max_file: 1GB }') },
        {},
        /limits of Feed's account.* Feed needs two streams/,
      ],
      [
        'an account that wants a limit for each stream',
        { access: accountWith('{ max_bytes_required: true, max_mem: 1GB, max_file: 1GB }') },
        {},
        /set FEED_RETENTION_MAX_BYTES or FEED_QUOTA_BYTES/,
      ],
      [
        'a server that is no member of a cluster',
        {},
        { FEED_NATS_REPLICAS: '3' },
        /FEED_NATS_REPLICAS says/,
      ],
    ])('%s', async (_what, options, more, message) => {
      const started = await servers(1, { jetstream: '', ...options });
      expect(await refusal({ ...jetstreamSettings(started), ...more })).toMatch(message);
    });

    test('a limit that grows beyond the room of the servers', async () => {
      const started = await servers(1, { limits: 'max_mem: 1GB, max_file: 100MB', jetstream: '' });
      const settings = jetstreamSettings(started);
      await runService({ ...settings, FEED_RETENTION_MAX_BYTES: '50MiB' });
      expect(await refusal({ ...settings, FEED_RETENTION_MAX_BYTES: '1GiB' })).toMatch(
        /can't be used: .*raise max_file_store/,
      );
    });

    test('an account that has no consumer left', async () => {
      const access = accountWith('{ max_consumers: 1, max_mem: 1GB, max_file: 1GB }');
      const started = await servers(1, { access, jetstream: '' });
      const settings = jetstreamSettings(started);
      await runService(settings);
      expect(await refusal(settings)).toMatch(/nobody can follow .*limits of Feed's account/);
    });

    test('streams of others in the way', async () => {
      const [server] = await servers(1, { jetstream: '' });
      const [one, other] = [jetstreamSettings([server]), jetstreamSettings([server])];
      await makeStream(server, `${one.FEED_NATS_STREAM}_ROOMS`, ['other']);
      expect(await refusal(one)).toMatch(/_ROOMS was not made by Feed/);
      await makeStream(server, 'all', [`${other.FEED_NATS_STREAM}.>`]);
      expect(await refusal(other)).toMatch(/name Feed another one in FEED_NATS_STREAM/);
    });
  },
);

describe.skipIf(!NATS_SERVER)(
  'a start waits where that may help, and says why and what to set',
  () => {
    async function expectWaits(settings: Settings, message: RegExp): Promise<void> {
      const service = ServiceProcess.spawn(settings);
      await until(
        () => message.test(service.output.join('')),
        () => `${message} in: ${service.output.join('')}`,
        40_000,
      );
      expect(service.output.join('')).not.toContain('listens');
    }

    test('servers without JetStream', async () => {
      const [server] = await servers(1, { jetstream: 'enabled: false' });
      await expectWaits(jetstreamSettings([server]), /waiting for JetStream: .*jetstream block/);
    });

    test('fewer servers than FEED_NATS_REPLICAS', async () => {
      const started = await servers(3, { jetstream: '' });
      const settings = { ...jetstreamSettings(started), FEED_NATS_REPLICAS: '5' };
      await expectWaits(settings, /waiting for JetStream: .*FEED_NATS_REPLICAS says/);
    });

    test('a cluster with too little memory for the rooms', async () => {
      const started = await servers(3, { limits: 'max_mem: 32MB, max_file: 1GB', jetstream: '' });
      await expectWaits(jetstreamSettings(started), /waiting for JetStream.*max_memory_store/);
    });
  },
);
