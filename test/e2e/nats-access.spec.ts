import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SetupError } from '../../src/nats/setup-error.js';
import { errorInfo, failure, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { type Account, credsOf, Operator } from '../support/nats-accounts.js';
import { runService, ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const certificate = (name: string): string =>
  fileURLToPath(new URL(`../../client/test/certificates/${name}`, import.meta.url));

/** Starts a server that runs until the test ends. */
async function server(access: string, jetstream = ''): Promise<NatsServer> {
  const [started] = await NatsServer.start(1, { access, jetstream });
  onTestFinished(() => started.remove());
  return started;
}

/** Returns the message of a start that has to fail. */
async function refusal(settings: Record<string, string>): Promise<string> {
  const error = await runService(settings).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SetupError);
  return (error as SetupError).message;
}

async function expectWorks(settings: Record<string, string>): Promise<void> {
  const { client } = await runService(settings);
  expect((await upload(client, [{ topic: 'orders', id: 'a' }])).result?.received).toBe(1);
}

function file(text: string): string {
  const path = join(temporaryDirectory(), 'file');
  writeFileSync(path, text);
  return path;
}

describe.skipIf(!NATS_SERVER)('TLS to NATS', () => {
  const tls = (name: string, more = ''): string =>
    `tls { cert_file: "${certificate(`${name}.pem`)}", key_file: "${certificate('server.key')}", ${more} }`;
  const on = ({ port }: NatsServer, protocol = 'tls'): Record<string, string> => ({
    ...jetstreamSettings([{ url: `${protocol}://localhost:${port}` }]),
  });

  describe('to a server with a good certificate', () => {
    let good: NatsServer;
    beforeAll(async () => void ([good] = await NatsServer.start(1, { access: tls('server') })));
    afterAll(() => good.remove());

    test.each(['tls', 'nats'])('works with the right authority, by a URL of %s', (protocol) =>
      expectWorks({ ...on(good, protocol), FEED_NATS_TLS_CA: certificate('ca.pem') }),
    );

    test.each([
      ['no authority is named', {}, /unknown authority: FEED_NATS_TLS_CA/],
      [
        'another authority is named',
        { FEED_NATS_TLS_CA: certificate('self-signed.pem') },
        /unknown authority: FEED_NATS_TLS_CA/,
      ],
      [
        'the authority is a key',
        { FEED_NATS_TLS_CA: certificate('server.key') },
        /FEED_NATS_TLS_CA: .*server\.key can't be used as a PEM file of a certificate/,
      ],
      [
        "the key is not the certificate's",
        {
          FEED_NATS_TLS_CA: certificate('ca.pem'),
          FEED_NATS_TLS_CERT: certificate('client.pem'),
          FEED_NATS_TLS_KEY: certificate('server.key'),
        },
        /FEED_NATS_TLS_KEY: .*server\.key can't be used with the certificate .*client\.pem/,
      ],
    ])('is refused where %s', async (_why, settings, message) => {
      expect(await refusal({ ...on(good), ...settings })).toMatch(message);
    });

    test('a start that is refused ends with exit code 78', async () => {
      const service = ServiceProcess.spawn(on(good));
      expect(await service.ended()).toEqual({ code: 78, signal: null });
      expect(service.output.join('')).toMatch(/NATS at tls:\/\/localhost:\d+: .*FEED_NATS_TLS_CA/);
    });
  });

  test.each([
    ['of another name', 'other-name', /another name: FEED_NATS_SERVERS/],
    ['that has expired', 'expired', /certificate has expired/],
  ])('is refused with a certificate %s', async (_why, name, message) => {
    const bad = await server(tls(name));
    const settings = { ...on(bad), FEED_NATS_TLS_CA: certificate(`${name}.pem`) };
    expect(await refusal(settings)).toMatch(message);
  });

  test('a URL of tls is never used without TLS', async () => {
    const plain = ServiceProcess.spawn(on(await server('')));
    await until(
      () => plain.output.join('').includes("does not support 'tls'"),
      () => `a word of it in: ${plain.output.join('')}`,
      40_000,
    );
    expect(plain.output.join('')).not.toContain('listens');
  });

  test('a server that asks for a certificate gets that of FEED_NATS_TLS_CERT', async () => {
    const asking = await server(tls('server', `ca_file: "${certificate('ca.pem')}", verify: true`));
    const settings = { ...on(asking), FEED_NATS_TLS_CA: certificate('ca.pem') };
    await expectWorks({
      ...settings,
      FEED_NATS_TLS_CERT: certificate('client.pem'),
      FEED_NATS_TLS_KEY: certificate('client.key'),
    });
    const wrong = {
      ...settings,
      FEED_NATS_TLS_CERT: certificate('self-signed.pem'),
      FEED_NATS_TLS_KEY: certificate('server.key'),
    };
    for (const message of await Promise.all([refusal(settings), refusal(wrong)]))
      expect(message).toMatch(/refuses Feed's certificate: FEED_NATS_TLS_CERT/);
  });
});

describe.skipIf(!NATS_SERVER)('credentials for NATS', () => {
  const operator = new Operator();
  const account = operator.account('FEED');
  const withoutJetStream = operator.account('NONE', {});
  const elsewhere = new Operator().account('FEED');
  let guarded: NatsServer;
  beforeAll(async () => {
    const access = operator.configuration(account, withoutJetStream);
    [guarded] = await NatsServer.start(1, { access });
  });
  afterAll(() => guarded.remove());

  const settingsWith = (creds: string): Record<string, string> => ({
    ...jetstreamSettings([guarded]),
    FEED_NATS_CREDENTIALS: file(creds),
  });

  test('those of a user of an account work', () => expectWorks(settingsWith(credsOf(account))));

  test.each<[string, () => string, RegExp]>([
    [
      'of another operator',
      () => credsOf(elsewhere),
      /does not take the user of FEED_NATS_CREDENTIALS/,
    ],
    [
      'that have expired',
      () => credsOf(account, { expires: -60 }),
      /FEED_NATS_CREDENTIALS: .* JWT expired at 20\d\d-/,
    ],
    [
      'whose seed is of another user',
      () => {
        const [one, other] = [credsOf(account), credsOf(account)];
        return one.slice(0, one.indexOf('****')) + other.slice(other.indexOf('****'));
      },
      /its JWT is of the user U\w+, and its seed of the user U/,
    ],
    ['that are no creds file', () => 'user: feed', /is no creds file/],
    [
      'of an account without JetStream',
      () => credsOf(withoutJetStream),
      /enable JetStream for the account/,
    ],
  ])('those %s are refused', async (_which, creds, message) => {
    expect(await refusal(settingsWith(creds()))).toMatch(message);
  });

  test('a server that asks for a user is not used without one', async () => {
    expect(await refusal(jetstreamSettings([guarded]))).toMatch(
      /FEED_NATS_CREDENTIALS must name the creds file/,
    );
  });

  /** What docs/operations.md says that the user needs. */
  const needed = (stream: string) => ({
    pub: { allow: ['$JS.API.>', '$JS.FC.>', `${stream}.>`, `${stream}_ROOMS.>`] },
    sub: { allow: ['_INBOX.>'] },
  });

  test('what the documentation says that a user needs is enough', async () => {
    const settings = settingsWith('');
    const creds = credsOf(account, needed(settings.FEED_NATS_STREAM));
    await expectWorks({ ...settings, FEED_NATS_CREDENTIALS: file(creds) });
  });

  test.each(['$JS.API.>', 'STREAM.>', '_INBOX.>'])(
    'a user who may not use %s is refused, by name',
    async (missing) => {
      const settings = settingsWith('');
      const without = missing.replace('STREAM', settings.FEED_NATS_STREAM);
      const { pub, sub } = needed(settings.FEED_NATS_STREAM);
      const allowed = ({ allow }: { allow: string[] }) => ({
        // An empty list would allow everything.
        allow: [...allow.filter((subject) => subject !== without), 'nothing'],
      });
      const creds = credsOf(account, { pub: allowed(pub), sub: allowed(sub) });
      const start = refusal({ ...settings, FEED_NATS_CREDENTIALS: file(creds) });
      expect(await start).toMatch(/may not (publish|subscribe) to .*docs\/operations\.md/);
    },
  );

  test('a user who may not use the rooms is refused with the first message, by name', async () => {
    const settings = settingsWith('');
    const { pub, sub } = needed(settings.FEED_NATS_STREAM);
    const allow = pub.allow.filter((subject) => !subject.includes('ROOMS'));
    const creds = credsOf(account, { pub: { allow }, sub });
    const { client, log } = await runService({ ...settings, FEED_NATS_CREDENTIALS: file(creds) });
    const chat = client.Chat();
    chat.write({ room: 'kitchen', from: 'ann', text: 'hello' });
    const error = await failure(chat);
    expect(errorInfo(error.metadata)?.reason).toBe('ROOM_INTERRUPTED');
    await until(
      () => /may not publish to \S+_ROOMS\.kitchen: docs/.test(JSON.stringify(log)),
      'a word of it',
    );
  });

  test('a user who expires is replaced by the one that the file has by then', async () => {
    const settings = settingsWith(credsOf(account, { expires: 15 }));
    const { client, log } = await runService(settings);
    const store = async (id: string) => upload(client, [{ topic: 'orders', id }]);
    expect((await store('a')).result?.received).toBe(1);
    await until(() => JSON.stringify(log).includes('FEED_NATS_CREDENTIALS'), 'a word of it');
    // Each of the two connections is refused several times.
    const refused = (): number => guarded.log.split('authentication error').length;
    const before = refused();
    await until(
      () => refused() > before + 8,
      () => `refused reconnects: ${guarded.log}`,
    );
    writeFileSync(settings.FEED_NATS_CREDENTIALS, credsOf(account));
    await eventually(async () => expect((await store('b')).result?.received).toBe(1));
  });

  describe('of the system account', () => {
    const settingsOf = (user: Account, expires?: number): Record<string, string> => {
      const settings = settingsWith(credsOf(account));
      delete settings.FEED_DURABILITY;
      return { ...settings, FEED_NATS_SYSTEM_CREDENTIALS: file(credsOf(user, { expires })) };
    };

    test('show that the servers flush', async () => {
      const { client } = await runService(settingsOf(operator.system));
      const { result } = await upload(client, [{ topic: 'orders' }]);
      expect(result?.durability).toBe(2);
    });

    test.each<[string, Account, number | undefined, RegExp]>([
      ['of an ordinary account', account, undefined, /must be a user of the system account/],
      [
        'of another operator',
        elsewhere,
        undefined,
        /does not take the user of FEED_NATS_SYSTEM_CRED/,
      ],
      ['that have expired', operator.system, -60, /FEED_NATS_SYSTEM_CREDENTIALS: .* JWT expired/],
    ])('those %s are refused', async (_which, user, expires, message) => {
      expect(await refusal(settingsOf(user, expires))).toMatch(message);
    });
  });
});
