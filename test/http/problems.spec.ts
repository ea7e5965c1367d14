import { readFileSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import type { CanActivate } from '@nestjs/common';
import { expect, test, vi } from 'vitest';
import { Topics } from '../../src/feed/topics.js';
import { MetricsPage } from '../../src/metrics/metrics-page.js';
import { connectAdmin } from '../support/admin.js';
import { Authority } from '../support/certificates.js';
import { type Answer, ask } from '../support/http.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { Issuer } from '../support/tokens.js';

/** Expects an answer to be a problem with this status and these members. */
function expectProblem(answer: Answer, code: number, members: object = {}): void {
  expect([answer.status, answer.headers['content-type']]).toEqual([
    code,
    'application/problem+json',
  ]);
  expect(answer.json).toMatchObject({ type: 'about:blank', status: code, ...members });
  expect(Object.keys(answer.json).toSorted()).toEqual(['detail', 'status', 'title', 'type']);
}

test.each([
  ['GET', '/v1/topics/%FF'],
  ['GET', '/v1/topics/%'],
  ['DELETE', '/v1/topics/%'],
  ['DELETE', '/v1/streams/%C3%28'],
  ['GET', '/v1/%'],
])('a path that is badly encoded is refused as a problem: %s %s', async (method, path) => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  expectProblem(await ask(httpAddress, path, { method }), 400, { title: 'Bad Request' });
});

test('a method that a path does not have is refused as a problem, with those that it has', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const allowed = {
    '/': 'GET',
    '/healthz': 'GET',
    '/readyz': 'GET',
    '/readyz?x=1': 'GET',
    '/metrics': 'GET',
    '/console': 'GET',
    '/console/': 'GET',
    '/console/assets/index.js': 'GET',
    '/v1/events': 'GET, POST',
    '/v1/events/': 'GET, POST',
    '/V1/Topics/T': 'GET, DELETE',
    '/v1/session': 'GET, POST, DELETE',
    '/v1/openapi.json': 'GET',
  };
  for (const [path, allow] of Object.entries(allowed)) {
    for (const method of ['PUT', 'PATCH', 'OPTIONS', 'PROPFIND']) {
      const answer = await ask(httpAddress, path, { method });
      expectProblem(answer, 405, { detail: `this path has ${allow}` });
      expect([path, answer.headers.allow]).toEqual([path, allow]);
    }
  }
});

test('a file that the console does not have is refused as a problem', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  expectProblem(await ask(httpAddress, '/console/nothing.js'), 404);
});

test('metrics that are elsewhere are a problem that says where', async () => {
  const issuer = await Issuer.create();
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory', ...issuer.settings() });
  expectProblem(await ask(httpAddress, '/metrics'), 403, {
    detail: expect.stringContaining('FEED_METRICS_ADDRESS') as unknown,
  });
  const other = await runService({
    FEED_ENGINE: 'memory',
    FEED_METRICS_ADDRESS: '127.0.0.1:0',
    FEED_CONSOLE: 'off',
  });
  expectProblem(await ask(other.httpAddress, '/metrics'), 404, {
    detail: expect.stringContaining('FEED_METRICS_ADDRESS') as unknown,
  });
  expectProblem(await ask(other.httpAddress, '/'), 404);
  expectProblem(await ask(other.httpAddress, '/console/'), 404);
});

test('a client without a certificate is refused with a problem', async () => {
  const authority = new Authority(temporaryDirectory());
  const { cert, key } = authority.server();
  const { httpAddress } = await runService({
    FEED_ENGINE: 'memory',
    FEED_TLS_CERT: cert,
    FEED_TLS_KEY: key,
    FEED_TLS_CLIENT_CA: authority.cert,
  });
  for (const path of ['/v1/events', '/nothing', '/console/', '/metrics'])
    expectProblem(await ask(httpAddress, path, { ca: readFileSync(authority.cert) }), 403);
});

test("a service with a team's guard has the probes alone, and refuses the rest as problems", async () => {
  class Anyone implements CanActivate {
    canActivate(): boolean {
      return true;
    }
  }
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' }, Anyone);
  expect((await ask(httpAddress, '/healthz')).status).toBe(200);
  for (const path of ['/v1/events', '/nothing', '/'])
    for (const method of ['GET', 'POST'])
      expectProblem(await ask(httpAddress, path, { method }), 404);
  expectProblem(await ask(httpAddress, '/healthz', { method: 'POST' }), 405);
});

test('a fault is a problem that does not show it, and a line of the log that does', async () => {
  const { httpAddress, app, log } = await runService({ FEED_ENGINE: 'memory' });
  vi.spyOn(app.get(MetricsPage), 'text').mockRejectedValue(new Error('a secret'));
  expectProblem(await ask(httpAddress, '/metrics'), 500, {
    detail: 'the service has a fault: its log says more',
  });
  expect(JSON.stringify(log.filter(({ level }) => level === 50))).toContain('a secret');
});

test('a fault of a call over gRPC is INTERNAL, and nothing of HTTP', async () => {
  const { grpcAddress, app, log } = await runService({ FEED_ENGINE: 'memory' });
  vi.spyOn(app.get(Topics), 'get').mockRejectedValue(new Error('a secret'));
  await expect(connectAdmin(grpcAddress).getTopic('orders')).rejects.toMatchObject({
    code: status.INTERNAL,
    details: 'Internal server error',
  });
  expect(log.filter(({ context }) => context === 'HTTP')).toEqual([]);
});
