import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { describe, expect, onTestFinished, test } from 'vitest';
import { RemoteKeys, type RemoteKeysOptions } from '../../src/auth/remote-keys.js';
import { Tokens } from '../../src/auth/tokens.js';
import { FeedError } from '../../src/feed/errors.js';
import { temporaryDirectory } from '../support/service.js';
import { AUDIENCE, ISSUER, Issuer, KeyServer } from '../support/tokens.js';
import { eventually, until } from '../support/wait.js';

const TIMES = { refresh: 60_000, pause: 50, keep: 60_000 };

function tokensOf(options: RemoteKeysOptions, times = {}, log = pino({ enabled: false })): Tokens {
  const keys = new RemoteKeys(options, log, { ...TIMES, ...times });
  onTestFinished(() => keys.close());
  return new Tokens(keys.key, {
    issuer: ISSUER,
    audience: AUDIENCE,
    algorithms: ['RS256', 'ES256'],
    clockTolerance: 0,
  });
}

const reasonOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'taken',
    (error: unknown) => (error instanceof FeedError ? error.reason : String(error)),
  );

/** A log, and the problems that its warnings name. */
function loggedProblems() {
  const problems: unknown[] = [];
  const write = (line: string): void =>
    void problems.push((JSON.parse(line) as { problem: unknown }).problem);
  return { log: pino({ level: 'warn' }, { write }), problems };
}

describe('keys of a URL', () => {
  test('are read once for many tokens', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    const tokens = tokensOf({ url: new URL(server.url) });
    for (let i = 0; i < 20; i++)
      expect(await tokens.verify(await issuer.token())).toMatchObject({ principal: 'ann' });
    expect(server.requests).toHaveLength(1);
  });

  test('are read again when a token names a new one, and an old one is refused once it is gone', async () => {
    const [old, next] = [await Issuer.create('1'), await Issuer.create('2', 'RS256')];
    const server = await KeyServer.start(old.jwk);
    const tokens = tokensOf({ url: new URL(server.url) });
    expect(await reasonOf(tokens.verify(await old.token()))).toBe('taken');
    server.keys = [old.jwk, next.jwk];
    const both = [old, next, next, old].map(async (one) => tokens.verify(await one.token()));
    expect(await Promise.all(both.map(reasonOf))).toEqual(Array(4).fill('taken'));
    server.keys = [next.jwk];
    const unknown = await Issuer.create('3');
    expect(await reasonOf(tokens.verify(await unknown.token()))).toBe('UNAUTHENTICATED');
    expect(await reasonOf(tokens.verify(await old.token()))).toBe('UNAUTHENTICATED');
  });

  test('are read once more for a token whose key is newer than a request that is under way', async () => {
    const [old, next] = [await Issuer.create('1'), await Issuer.create('2')];
    const server = await KeyServer.start(old.jwk);
    const tokens = tokensOf({ url: new URL(server.url) });
    const [oldToken, nextToken] = [await old.token(), await next.token()];
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    server.held = held;
    const first = reasonOf(tokens.verify(oldToken));
    await until(() => server.requests.length === 1, 'the first request');
    server.keys = [old.jwk, next.jwk];
    server.held = undefined;
    const others = [nextToken, oldToken, nextToken].map((token) => reasonOf(tokens.verify(token)));
    release();
    expect(await Promise.all([first, ...others])).toEqual(Array(4).fill('taken'));
    expect(server.requests).toHaveLength(2);
  });

  test('that can not be read are refused without what a stranger should not see, such as paths', async () => {
    const issuer = await Issuer.create();
    const token = join(temporaryDirectory(), 'token');
    const tokens = tokensOf({ url: new URL('http://127.0.0.1:1/keys'), token });
    const refused = tokens.verify(await issuer.token());
    await expect(refused).rejects.toMatchObject({ reason: 'KEYS_UNAVAILABLE' });
    await expect(refused).rejects.not.toThrow(token);
    await expect(refused).rejects.toThrow('the log of the service says why');
  });

  test('are asked for no more often than the pause allows, whatever tokens name', async () => {
    const issuer = await Issuer.create();
    const others = await Promise.all(Array.from({ length: 8 }, (_, i) => Issuer.create(`${i}`)));
    const server = await KeyServer.start(issuer.jwk);
    const tokens = tokensOf({ url: new URL(server.url) }, { pause: 300 });
    const begin = performance.now();
    await tokens.verify(await issuer.token());
    for (const other of others) {
      const three = [other, other, other].map(async (one) => tokens.verify(await one.token()));
      expect(await Promise.all(three.map(reasonOf))).toEqual(Array(3).fill('UNAUTHENTICATED'));
    }
    // A timer may fire up to two milliseconds early.
    const most = 1 + (performance.now() - begin) / 298;
    expect(server.requests.length).toBeLessThanOrEqual(most);
  });

  test('go on to be used while their server is away, but not for ever', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    const tokens = tokensOf({ url: new URL(server.url) }, { refresh: 20, keep: 9_000 });
    const token = await issuer.token();
    expect(await reasonOf(tokens.verify(token))).toBe('taken');
    server.status = 503;
    const since = performance.now();
    const before = server.requests.length;
    // One of the first two may have been answered before.
    await until(() => server.requests.length >= before + 3, 'refreshes that fail');
    expect(await reasonOf(tokens.verify(token))).toBe('taken');
    const unknown = await Issuer.create('unknown');
    expect(await reasonOf(tokens.verify(await unknown.token()))).toBe('KEYS_UNAVAILABLE');
    await sleep(9_100 - (performance.now() - since));
    // A request that was under way when the server went may have brought the keys later than that.
    await eventually(
      async () => expect(await reasonOf(tokens.verify(token))).toBe('KEYS_UNAVAILABLE'),
      5_000,
    );
    server.status = 200;
    expect(await reasonOf(tokens.verify(token))).toBe('taken');
  });

  test('that were never read are no reason to refuse a token for good', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start();
    server.status = 500;
    const tokens = tokensOf({ url: new URL(server.url) });
    const token = await issuer.token();
    expect(await reasonOf(tokens.verify(token))).toBe('KEYS_UNAVAILABLE');
    server.status = 200;
    server.keys = [issuer.jwk];
    expect(await reasonOf(tokens.verify(token))).toBe('taken');
  });

  test('that can not be read are logged once for each reason', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    const { log, problems } = loggedProblems();
    const tokens = tokensOf({ url: new URL(server.url) }, {}, log);
    const token = await issuer.token();
    for (server.status of [503, 503, 403])
      expect(await reasonOf(tokens.verify(token))).toBe('KEYS_UNAVAILABLE');
    expect(problems).toEqual(['HTTP 503', 'HTTP 403']);
  });

  test('are asked for again after an answer that changes the protocol', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    server.switchesProtocols = true;
    const { log, problems } = loggedProblems();
    const tokens = tokensOf({ url: new URL(server.url) }, {}, log);
    const token = await issuer.token();
    expect(await reasonOf(tokens.verify(token))).toBe('KEYS_UNAVAILABLE');
    expect(problems).toEqual(['HTTP 101']);
    server.switchesProtocols = false;
    expect(await reasonOf(tokens.verify(token))).toBe('taken');
  });

  test('whose server gives no answer are asked for again after 5 s, and the log says why', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    server.held = held;
    onTestFinished(() => release());
    const { log, problems } = loggedProblems();
    const tokens = tokensOf({ url: new URL(server.url) }, {}, log);
    const token = await issuer.token();
    expect(await reasonOf(tokens.verify(token))).toBe('KEYS_UNAVAILABLE');
    expect(problems).toEqual(['no whole answer within 5 s']);
    server.held = undefined;
    expect(await reasonOf(tokens.verify(token))).toBe('taken');
  });

  test.each([
    ['private', { d: 'x' }],
    ['symmetric', { kty: 'oct', k: 'x' }],
    ['the only one, and broken', { x: 'x' }],
  ])('are refused if one is %s', async (_, more) => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start({ ...issuer.jwk, ...more });
    const tokens = tokensOf({ url: new URL(server.url) });
    expect(await reasonOf(tokens.verify(await issuer.token()))).toBe('KEYS_UNAVAILABLE');
  });

  test('are used without one that is broken, which the log says once', async () => {
    const [issuer, other] = [await Issuer.create('good'), await Issuer.create('broken')];
    const server = await KeyServer.start(issuer.jwk, { ...other.jwk, x: 'x' });
    const { log, problems } = loggedProblems();
    const tokens = tokensOf({ url: new URL(server.url) }, {}, log);
    expect(await reasonOf(tokens.verify(await issuer.token()))).toBe('taken');
    for (let i = 0; i < 2; i++)
      expect(await reasonOf(tokens.verify(await other.token()))).toBe('UNAUTHENTICATED');
    expect(server.requests.length).toBeGreaterThan(1);
    expect(problems).toEqual([expect.stringContaining(`its key "broken" can't be used`)]);
  });

  test('are read by https from a server that the authority of a file vouches for, and from no other', async () => {
    const file = (name: string): string =>
      fileURLToPath(new URL(`../../client/test/certificates/${name}`, import.meta.url));
    const issuer = await Issuer.create();
    const pair = { cert: readFileSync(file('server.pem')), key: readFileSync(file('server.key')) };
    const server = await KeyServer.startWith(pair, issuer.jwk);
    const url = new URL(server.url);
    const token = await issuer.token();
    expect(await reasonOf(tokensOf({ url, ca: file('ca.pem') }).verify(token))).toBe('taken');
    expect(await reasonOf(tokensOf({ url }).verify(token))).toBe('KEYS_UNAVAILABLE');
    const other = tokensOf({ url, ca: file('self-signed.pem') });
    expect(await reasonOf(other.verify(token))).toBe('KEYS_UNAVAILABLE');
    expect(server.requests).toHaveLength(1);
  });

  test('are asked for with the token of a file, which is read each time', async () => {
    const issuer = await Issuer.create();
    const server = await KeyServer.start(issuer.jwk);
    const token = join(temporaryDirectory(), 'token');
    writeFileSync(token, 'one\n');
    const tokens = tokensOf({ url: new URL(server.url), token });
    await tokens.verify(await issuer.token());
    writeFileSync(token, 'two\n');
    const unknown = await Issuer.create('unknown');
    await reasonOf(tokens.verify(await unknown.token()));
    expect(server.requests.map(({ authorization }) => authorization)).toEqual([
      'Bearer one',
      'Bearer two',
    ]);
  });
});
