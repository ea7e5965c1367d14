import { createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { type JWK, UnsecuredJWT } from 'jose';
import { describe, expect, onTestFinished, test } from 'vitest';
import { codec } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { outcomeOf, type RawOutcome } from '../support/raw-outcome.js';
import {
  type Running,
  runService,
  ServiceProcess,
  temporaryDirectory,
} from '../support/service.js';
import { AUDIENCE, ISSUER, Issuer, KeyServer } from '../support/tokens.js';
import { eventually, until } from '../support/wait.js';

type Headers = Record<string, string>;

const bearerOf = (token: string): Headers => ({ authorization: `Bearer ${token}` });

/** A token whose algorithm is HMAC, and whose key is the public key that the service has: anybody could make it. */
function hmacToken(publicKey: string): string {
  const now = Math.floor(Date.now() / 1000);
  const part = (content: object): string =>
    Buffer.from(JSON.stringify(content)).toString('base64url');
  const claims = { sub: 'ann', iss: ISSUER, aud: AUDIENCE, iat: now, exp: now + 3600 };
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${text}.${createHmac('sha256', publicKey).update(text).digest('base64url')}`;
}

/** What a call may show, and why it is refused. */
async function credentials(issuer: Issuer): Promise<Record<string, [Headers, string?, RegExp?]>> {
  const stranger = await Issuer.create();
  const unsigned = new UnsecuredJWT({ sub: 'ann' })
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setExpirationTime('1h')
    .encode();
  const [header, , signature] = (await issuer.token()).split('.');
  const [, admin] = (await issuer.token({ sub: 'admin' })).split('.');
  const token = await issuer.token();
  return {
    right: [bearerOf(token)],
    'right, in other letters': [{ authorization: `bEARER ${token}` }],
    missing: [{}, 'UNAUTHENTICATED', /has no token/],
    empty: [{ authorization: '' }, 'UNAUTHENTICATED', /not "Bearer <token>"/],
    basic: [{ authorization: 'Basic YW5uOmFubg==' }, 'UNAUTHENTICATED', /not "Bearer <token>"/],
    'two tokens': [bearerOf(`${token}, ${token}`), 'UNAUTHENTICATED', /not "Bearer <token>"/],
    'no token': [bearerOf('hello'), 'UNAUTHENTICATED', /no signed JSON Web Token/],
    'a long token': [bearerOf('x'.repeat(20_000)), 'UNAUTHENTICATED', /longer than/],
    expired: [bearerOf(await issuer.token({ expiresIn: -60 })), 'TOKEN_EXPIRED', /has expired/],
    'wrong key': [bearerOf(await stranger.token()), 'UNAUTHENTICATED', /none of the keys/],
    'another name': [
      bearerOf(`${header}.${admin}.${signature}`),
      'UNAUTHENTICATED',
      /none of the keys/,
    ],
    'wrong audience': [
      bearerOf(await issuer.token({ audience: 'other' })),
      'UNAUTHENTICATED',
      /not for the audience "feed"/,
    ],
    'wrong issuer': [
      bearerOf(await issuer.token({ issuer: 'https://evil.example.com' })),
      'UNAUTHENTICATED',
      /issuer is not/,
    ],
    unsigned: [bearerOf(unsigned), 'UNAUTHENTICATED', /signed with none of RS256/],
    'HMAC with the public key': [
      bearerOf(hmacToken(issuer.pem)),
      'UNAUTHENTICATED',
      /signed with none of RS256/,
    ],
  };
}

const LIST_SERVICES = Buffer.from([0x3a, 0x01, 0x2a]);
const CALLS: Record<string, { path: string; message: Uint8Array; code: number | 'open' }> = {
  Watch: {
    path: '/feed.v1.FeedService/Watch',
    message: codec.watchRequest.serialize({ topic: 'orders' }),
    code: 'open',
  },
  UploadEvents: {
    path: '/feed.v1.FeedService/UploadEvents',
    message: codec.event.serialize({ topic: 'orders', body: 'x' }),
    code: status.OK,
  },
  Chat: {
    path: '/feed.v1.FeedService/Chat',
    message: codec.chatMessage.serialize({ text: 'hi' }),
    code: status.OK,
  },
  reflection: {
    path: '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    message: LIST_SERVICES,
    code: status.OK,
  },
  'reflection (v1alpha)': {
    path: '/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo',
    message: LIST_SERVICES,
    code: status.OK,
  },
  health: { path: '/grpc.health.v1.Health/Check', message: Buffer.alloc(0), code: status.OK },
};

async function rawClient(address: string): Promise<RawClient> {
  const raw = await RawClient.connect(address);
  onTestFinished(() => raw.close());
  return raw;
}

/** What each call ends with. */
async function outcomes(raw: RawClient, headers: Headers): Promise<Record<string, RawOutcome>> {
  const all: Record<string, RawOutcome> = {};
  for (const [name, { path, message }] of Object.entries(CALLS))
    all[name] = await outcomeOf(raw, path, headers, message);
  return all;
}

/** The HTTP statuses of the probes. Node refuses headers over 16 KiB (431), whatever they are. */
const probe = async ({ httpAddress }: Running, headers: Headers): Promise<number[]> =>
  Promise.all(
    ['healthz', 'readyz'].map(async (path) => {
      const isLong = (headers.authorization ?? '').length > 10_000;
      const response = await fetch(`http://${httpAddress}/${path}`, isLong ? {} : { headers });
      return response.status;
    }),
  );

const NEEDS_NONE = new Set(['health']);

async function expectTokensAreChecked(service: Running, issuer: Issuer): Promise<void> {
  for (const [name, [headers, reason, details]] of Object.entries(await credentials(issuer))) {
    const raw = await rawClient(service.grpcAddress);
    for (const [call, found] of Object.entries(await outcomes(raw, headers))) {
      const cell = `${call} with ${name}`;
      if (reason === undefined || NEEDS_NONE.has(call)) {
        expect({ cell, code: found.code }).toEqual({ cell, code: CALLS[call].code });
      } else {
        expect({ cell, ...found }).toMatchObject({
          cell,
          code: status.UNAUTHENTICATED,
          reason,
          details: expect.stringMatching(details!),
        });
      }
    }
    expect(await probe(service, headers)).toEqual([200, 200]);
    raw.close();
  }
}

describe('who may call', () => {
  test('everybody, without authentication, whatever they show', async () => {
    const issuer = await Issuer.create();
    const service = await runService({ FEED_ENGINE: 'memory' });
    for (const [headers] of Object.values(await credentials(issuer))) {
      const raw = await rawClient(service.grpcAddress);
      const found = await outcomes(raw, headers);
      for (const [call, { code }] of Object.entries(CALLS)) expect(found[call].code).toBe(code);
      expect(await probe(service, headers)).toEqual([200, 200]);
      raw.close();
    }
    expect(service.log.some(({ principal }) => principal !== undefined)).toBe(false);
  });

  test.each(['ES256', 'RS256', 'EdDSA'])(
    'who shows a token of the issuer, with a key in a file (%s), and nobody else',
    async (alg) => {
      const issuer = await Issuer.create('key-1', alg);
      const service = await runService({ FEED_ENGINE: 'memory', ...issuer.settings() });
      await expectTokensAreChecked(service, issuer);
      const names = new Set(service.log.map(({ principal }) => principal));
      expect(names).toEqual(new Set([undefined, 'ann']));
    },
  );

  test('the same with the keys of a URL, and with those that come after a rotation', async () => {
    const [issuer, next] = [await Issuer.create('1', 'RS256'), await Issuer.create('2')];
    const server = await KeyServer.start(issuer.jwk);
    const service = await runService({
      FEED_ENGINE: 'memory',
      FEED_JWT_JWKS_URL: server.url,
      FEED_JWT_ISSUER: ISSUER,
      FEED_JWT_AUDIENCE: AUDIENCE,
    });
    const raw = await rawClient(service.grpcAddress);
    const { path, message } = CALLS.UploadEvents;
    const upload = async (one: Issuer) =>
      (await outcomeOf(raw, path, bearerOf(await one.token()), message)).code;
    expect(await upload(issuer)).toBe(status.OK);
    server.keys = [next.jwk];
    expect(await upload(next)).toBe(status.OK);
    expect(await upload(issuer)).toBe(status.UNAUTHENTICATED);
    server.status = 503;
    expect(await upload(next)).toBe(status.OK);
    expect(await upload(issuer)).toBe(status.UNAVAILABLE);
  });
});

/** Writes a set of public keys to a file. */
const writeKeySet = (file: string, ...keys: JWK[]): void =>
  writeFileSync(file, JSON.stringify({ keys }));

test('a set of keys in a file is used again after one of its keys was broken, and no call fails for it', async () => {
  const issuer = await Issuer.create('one');
  const broken = await Issuer.create('two');
  const file = join(temporaryDirectory(), 'keys.json');
  writeKeySet(file, issuer.jwk);
  const service = await runService({
    FEED_ENGINE: 'memory',
    ...issuer.settings(),
    FEED_JWT_PUBLIC_KEY: file,
  });
  const raw = await rawClient(service.grpcAddress);
  const { path, message } = CALLS.UploadEvents;
  const upload = async (one: Issuer) =>
    (await outcomeOf(raw, path, bearerOf(await one.token()), message)).code;
  writeKeySet(file, issuer.jwk, { ...broken.jwk, x: 'AAAA' });
  const said = ({ msg, problem }: Record<string, unknown>) =>
    String(msg).includes("can't be used") && String(problem).includes('its key "two"');
  await until(() => service.log.some(said), 'the line of the broken key');
  expect(await upload(issuer)).toBe(status.OK);
  expect(await upload(broken)).toBe(status.UNAUTHENTICATED);
  writeKeySet(file, issuer.jwk, broken.jwk);
  await eventually(async () => expect(await upload(broken)).toBe(status.OK));
});

describe('a start', () => {
  const refused = async (settings: Record<string, string>): Promise<string> => {
    const service = ServiceProcess.spawn({ FEED_ENGINE: 'memory', ...settings });
    expect(await service.ended()).toEqual({ code: 78, signal: null });
    return service.output.join('');
  };

  test.each([
    ['tokens without an issuer', { FEED_JWT_ISSUER: '' }, 'FEED_JWT_ISSUER'],
    ['tokens without an audience', { FEED_JWT_AUDIENCE: '' }, 'FEED_JWT_AUDIENCE'],
    ['tokens in the clear for others', { FEED_GRPC_ADDRESS: '0.0.0.0:0' }, 'FEED_GRPC_ADDRESS'],
    ['tokens in the clear over HTTP', { FEED_HTTP_ADDRESS: '0.0.0.0:0' }, 'FEED_HTTP_ADDRESS'],
    ['a key that is none', { FEED_JWT_PUBLIC_KEY: 'package.json' }, 'FEED_JWT_PUBLIC_KEY'],
    ['a policy that is none', { FEED_POLICY_FILE: 'package.json' }, 'FEED_POLICY_FILE'],
  ])('is refused with 78: %s', async (_, settings, names) => {
    const issuer = await Issuer.create();
    expect(await refused({ ...issuer.settings(), ...settings })).toContain(names);
  });

  test('is refused with 78: a key of a set that can not be used, which is named', async () => {
    const issuer = await Issuer.create('two');
    const file = join(temporaryDirectory(), 'keys.json');
    writeKeySet(file, { ...issuer.jwk, x: 'AAAA' });
    const output = await refused({ ...issuer.settings(), FEED_JWT_PUBLIC_KEY: file });
    expect(output).toContain(`FEED_JWT_PUBLIC_KEY=${file}: its key "two" can't be used`);
  });

  test('is refused with 78: a policy without authentication', async () => {
    expect(await refused({ FEED_POLICY_FILE: 'package.json' })).toContain('FEED_POLICY_FILE');
  });

  test('says that callers may do everything while there is no policy', async () => {
    const issuer = await Issuer.create();
    const { log } = await runService({ FEED_ENGINE: 'memory', ...issuer.settings() });
    const lines = log.filter(({ msg }) => String(msg).includes('FEED_POLICY_FILE'));
    expect(lines).toHaveLength(1);
  });

  test('off loopback says that it is without authentication, and with tokens does not', async () => {
    const says = async (settings: Record<string, string>): Promise<boolean> => {
      const { log } = await runService({ FEED_ENGINE: 'memory', ...settings });
      return log.some(({ msg }) => String(msg).includes('without authentication'));
    };
    expect(await says({ FEED_GRPC_ADDRESS: '0.0.0.0:0' })).toBe(true);
    expect(await says({})).toBe(false);
  });
});

describe('secrets', () => {
  test('are nowhere in the log at level trace, nor in what clients get', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    const secret = 'the-secret-token-of-the-service-itself';
    const file = join(temporaryDirectory(), 'token');
    writeFileSync(file, secret);
    const service = await ServiceProcess.start({
      FEED_ENGINE: 'memory',
      FEED_LOG_LEVEL: 'trace',
      FEED_JWT_JWKS_URL: server.url,
      FEED_JWT_ISSUER: ISSUER,
      FEED_JWT_AUDIENCE: AUDIENCE,
      FEED_JWT_JWKS_TOKEN: file,
    });
    const shown = await credentials(issuer);
    const answers: string[] = [];
    for (const [headers] of Object.values(shown)) {
      const raw = await rawClient(service.grpcAddress);
      answers.push(JSON.stringify(await outcomes(raw, headers)));
      raw.close();
    }
    server.status = 500;
    await service.kill('SIGTERM');
    const all = service.output.join('') + answers.join('');
    expect(all).toContain('ann');
    expect(server.requests[0].authorization).toBe(`Bearer ${secret}`);
    const tokens = Object.values(shown).map(([{ authorization = '' }]) => authorization.slice(7));
    for (const text of [secret, ...tokens.filter((token) => token.length > 20)])
      for (const part of text.split('.').filter((one) => one.length > 20))
        expect(all.includes(part)).toBe(false);
  });
});
