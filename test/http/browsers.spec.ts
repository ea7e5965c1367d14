import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { describe, expect, test } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { Authority } from '../support/certificates.js';
import { upload } from '../support/client.js';
import { ask, EventStream } from '../support/http.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { testTls } from '../support/tls.js';
import { Issuer } from '../support/tokens.js';

const scheme = testTls ? 'https' : 'http';
const SHOP = 'https://shop.example.com';
const memory = (settings: Record<string, string> = {}) =>
  runService({ FEED_ENGINE: 'memory', ...settings });

const postAs = (address: string, headers: Record<string, string>) =>
  ask(address, '/v1/events?topic=orders', {
    method: 'POST',
    headers: { 'content-type': 'text/plain', ...headers },
    body: 'x',
  });

describe('a page of strangers', () => {
  test.each([
    [{ origin: 'https://evil.example.com' }],
    [{ origin: 'null' }],
    [{ origin: 'http://127.0.0.1:1' }],
    [{ origin: 'http://localhost' }],
    [{ origin: `${SHOP}.evil.com` }],
    [{ origin: '' }],
    [{ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' }],
    [{ 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'cors' }],
  ])('that asks with %j is refused, and nothing is stored', async (headers) => {
    const { httpAddress, app } = await memory({ FEED_HTTP_ORIGINS: SHOP });
    const answer = await postAs(httpAddress, headers);
    expect(answer.status).toBe(403);
    expect(answer.json).toMatchObject({
      status: 403,
      detail: expect.stringContaining('FEED_HTTP_ORIGINS'),
    });
    expect(answer.json).not.toHaveProperty('reason');
    expect(answer.headers).not.toHaveProperty('access-control-allow-origin');
    expect([...app.get(LiveCalls)]).toEqual([]);
    const read = await ask(httpAddress, '/v1/topics', { headers });
    expect(read.status).toBe(403);
  });

  test('that was opened as a file is told to be served over HTTP', async () => {
    const { httpAddress } = await memory();
    const answer = await postAs(httpAddress, { origin: 'null' });
    expect(answer.json).toMatchObject({
      detail: expect.stringMatching(/opened as a file.*Serve it over HTTP.*FEED_HTTP_ORIGINS/),
    });
  });

  test.each([
    ['evil.example.com', 421],
    ['evil.example.com:8080', 421],
    ['feed.shop', 421],
    ['feed.local', 421],
    ['127.0.0.1.evil.com', 421],
    ['localhost.evil.com:80', 421],
    ['localhost:1234', 200],
    ['LOCALHOST', 200],
    ['feed', 200],
    ['feed:8080', 200],
    ['feed.shop.svc:8080', 200],
    ['feed.shop.svc.cluster.local', 200],
    ['feed.shop.svc.cluster.local.', 200],
    ['10.1.2.3:8080', 200],
    ['[::1]:8080', 200],
    ['app.localhost', 200],
    ['shop.example.com', 200],
  ])(
    'whose name of the host is %s gets %i, where nobody is asked who they are',
    async (host, status) => {
      const { httpAddress } = await memory({ FEED_HTTP_ORIGINS: SHOP });
      expect((await ask(httpAddress, '/v1/topics', { headers: { host } })).status).toBe(status);
      expect((await postAs(httpAddress, { host })).status).toBe(status);
      // Probes are asked by any name.
      expect((await ask(httpAddress, '/healthz', { headers: { host } })).status).toBe(200);
    },
  );

  test('may use any name of the host where callers show tokens, which it has none of', async () => {
    const issuer = await Issuer.create();
    const { httpAddress } = await memory(issuer.settings());
    const authorization = `Bearer ${await issuer.token()}`;
    const headers = { host: 'feed.example.com', authorization };
    expect((await postAs(httpAddress, headers)).status).toBe(200);
  });
});

test('a page that is refused has a line in the log, with what to do, at most once a minute', async () => {
  const { httpAddress, log } = await memory();
  for (let i = 0; i < 3; i++) await postAs(httpAddress, { origin: 'https://evil.example.com' });
  const lines = log.filter(({ refusedPages }) => refusedPages !== undefined);
  expect(lines).toEqual([
    expect.objectContaining({
      context: 'HTTP',
      refusedPages: 1,
      msg: expect.stringMatching(/403.*evil\.example\.com.*FEED_HTTP_ORIGINS/),
    }),
  ]);
});

test('over TLS, a page of the same host in plain text is one of strangers', async () => {
  const { cert, key } = new Authority(temporaryDirectory()).server();
  const { httpAddress } = await memory({ FEED_TLS_CERT: cert, FEED_TLS_KEY: key });
  const statusOf = async (origin: string) => {
    const [host, port] = httpAddress.split(':');
    const call = httpsRequest({
      host,
      port,
      path: '/v1/topics',
      agent: false,
      servername: 'localhost',
      rejectUnauthorized: false,
      headers: { origin },
    });
    const [response] = (await once(call.end(), 'response')) as [IncomingMessage];
    response.resume();
    return response.statusCode;
  };
  expect(await statusOf(`https://${httpAddress}`)).toBe(200);
  expect(await statusOf(`http://${httpAddress}`)).toBe(403);
});

test('the service may be asked by its own pages, and by a link', async () => {
  const { httpAddress } = await memory();
  const own = { origin: `${scheme}://${httpAddress}`, 'sec-fetch-site': 'same-origin' };
  const answer = await postAs(httpAddress, own);
  expect(answer.status).toBe(200);
  expect(answer.headers).not.toHaveProperty('access-control-allow-origin');
  expect(answer.headers.vary).toBe('origin');
  const link = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' };
  expect((await ask(httpAddress, '/v1/openapi.json', { headers: link })).status).toBe(200);
  expect(
    (
      await postAs(httpAddress, {
        host: 'localhost',
        origin: `${scheme}://localhost:${testTls ? 443 : 80}`,
      })
    ).status,
  ).toBe(200);
});

test('pages of FEED_HTTP_ORIGINS may ask, and read the answers', async () => {
  const { httpAddress, client } = await memory({
    FEED_HTTP_ORIGINS: `${SHOP}, http://localhost:5173`,
  });
  for (const origin of [SHOP, 'http://localhost:5173']) {
    const preflight = await ask(httpAddress, '/v1/events', {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type',
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-allow-credentials': 'true',
      'access-control-allow-methods': 'GET, POST, DELETE',
      'access-control-allow-headers': 'authorization, content-type, last-event-id',
    });
    const answer = await postAs(httpAddress, { origin });
    expect(answer.status).toBe(200);
    expect(answer.headers['access-control-allow-origin']).toBe(origin);
  }
  await upload(client, [{ topic: 'orders', body: 'x' }]);
  const stream = await EventStream.open(httpAddress, 'topic=orders&from=earliest', {
    origin: SHOP,
  });
  expect(stream.headers['access-control-allow-origin']).toBe(SHOP);
  expect(stream.headers['access-control-expose-headers']).toContain('feed-head');
});

describe('a session', () => {
  test.each([1e10, 1e13, 1e16])(
    'of a token that is good for %i s more ends with the year 9999',
    async (expiresIn) => {
      const issuer = await Issuer.create();
      const { httpAddress } = await memory(issuer.settings());
      const token = await issuer.token({ expiresIn });
      const begun = await ask(httpAddress, '/v1/session', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ token }),
      });
      expect(begun.status).toBe(200);
      const { expiresAt } = begun.json as { expiresAt: string };
      expect(new Date(expiresAt).getUTCFullYear()).toBe(expiresIn === 1e10 ? 2343 : 9999);
      expect(begun.headers['set-cookie']![0]).toMatch(/; Max-Age=\d+; /);
    },
  );

  test('is a cookie made of a token, by which a browser watches, until the token expires', async () => {
    const issuer = await Issuer.create();
    const { httpAddress } = await memory(issuer.settings());
    const post = (body: string, headers: Record<string, string> = {}) =>
      ask(httpAddress, '/v1/session', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body,
      });
    expect((await ask(httpAddress, '/v1/session')).status).toBe(401);
    const token = await issuer.token({ expiresIn: 10 });
    const begun = await post(JSON.stringify({ token }));
    expect(begun.status).toBe(200);
    expect(begun.json).toEqual({ principal: 'ann', expiresAt: expect.stringMatching(/Z$/) });
    const [cookie] = begun.headers['set-cookie']!;
    expect(cookie).toMatch(
      /^feed-session=[\w.-]+; Path=\/; Max-Age=(?:\d|1[0-3]); HttpOnly; SameSite=Strict$/,
    );
    const headers = { cookie: `theme=dark; ${cookie.split(';', 1)[0]}` };
    const stream = await EventStream.open(httpAddress, 'topic=orders', headers);
    expect(stream.status).toBe(200);
    expect((await ask(httpAddress, '/v1/session', { headers })).json).toEqual(begun.json);
    // A header that is refused is not made good by a cookie.
    const both = { ...headers, authorization: 'Bearer x' };
    expect((await ask(httpAddress, '/v1/session', { headers: both })).status).toBe(401);
    await stream.ended();
    expect(stream.problem).toMatchObject({ reason: 'TOKEN_EXPIRED', status: 401 });
    const late = await ask(httpAddress, '/v1/events?topic=orders', { headers });
    expect(late.status).toBe(401);
    expect(late.headers['www-authenticate']).toBe('Bearer');
    expect(late.json).toMatchObject({ reason: 'TOKEN_EXPIRED' });

    const ended = await ask(httpAddress, '/v1/session', { method: 'DELETE', headers });
    expect(ended.status).toBe(204);
    expect(ended.headers['set-cookie']![0]).toMatch(/^feed-session=; Path=\/; Max-Age=0; /);

    expect((await post(JSON.stringify({ token: 'no' }))).json).toMatchObject({
      reason: 'UNAUTHENTICATED',
    });
    expect((await post('{"token":1}')).json).toMatchObject({ reason: 'REQUEST_INVALID' });
    expect((await post('no')).json).toMatchObject({ reason: 'REQUEST_INVALID' });
    for (const type of ['text/plain', 'application/json-patch+json'])
      expect((await post('{}', { 'content-type': type })).status).toBe(415);
    expect((await post('x'.repeat(100_000))).status).toBe(413);
    expect((await post(JSON.stringify({ token }), { origin: 'https://evil.com' })).status).toBe(
      403,
    );
  });

  test.each([
    ['shop.example.com', true],
    ['SHOP.example.com:443', true],
    ['shop.example.com:8080', false],
    ['plain.example.com', false],
    ['localhost', false],
  ])(
    'behind a proxy that ends TLS, at %s, has a cookie that only this host over TLS can set: %s',
    async (host, isSecure) => {
      const issuer = await Issuer.create();
      const origins = { FEED_HTTP_ORIGINS: `${SHOP},http://plain.example.com` };
      const { httpAddress } = await memory({ ...issuer.settings(), ...origins });
      const begun = await ask(httpAddress, '/v1/session', {
        method: 'POST',
        headers: { host, 'content-type': 'application/json' },
        body: JSON.stringify({ token: await issuer.token() }),
      });
      const [cookie] = begun.headers['set-cookie']!;
      const [name, token] = cookie.split(';', 1)[0].split('=');
      const other = isSecure ? 'feed-session' : '__Host-feed-session';
      expect(name).toBe(isSecure ? '__Host-feed-session' : 'feed-session');
      expect(cookie).toContain('; Path=/; ');
      expect(cookie.endsWith('; Secure')).toBe(isSecure);
      expect(cookie).not.toContain('Domain');
      const readBy = async (sent: string) =>
        (await ask(httpAddress, '/v1/session', { headers: { host, cookie: sent } })).status;
      expect(await readBy(`${other}=no; ${name}=${token}`)).toBe(200);
      // Another port or a name below this host may have planted it.
      expect(await readBy(`${other}=${token}`)).toBe(401);
      const ended = await ask(httpAddress, '/v1/session', { method: 'DELETE', headers: { host } });
      expect(ended.headers['set-cookie']![0]).toMatch(new RegExp(`^${name}=; Path=/; Max-Age=0; `));
    },
  );

  test('is nobody, without a cookie, where the service asks nobody who they are', async () => {
    const { httpAddress } = await memory();
    expect((await ask(httpAddress, '/v1/session')).json).toEqual({ principal: '' });
    const begun = await ask(httpAddress, '/v1/session', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"token":"x"}',
    });
    expect(begun.json).toEqual({ principal: '' });
    expect(begun.headers).not.toHaveProperty('set-cookie');
  });
});
