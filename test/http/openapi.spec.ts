import { expect, test } from 'vitest';
import { ROUTES } from '../../src/http/routes.js';
import { ask } from '../support/http.js';
import { runService } from '../support/service.js';

interface Operation {
  readonly operationId: string;
  readonly parameters: { readonly name: string; readonly in: string }[];
  readonly responses: Record<string, { content: Record<string, { schema: unknown }> }>;
}

interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
}

test('the OpenAPI document has each path, and each path that it has is served', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const { openapi, paths } = (await ask(httpAddress, '/v1/openapi.json')).json as Document;
  expect(openapi).toBe('3.1.0');
  const found = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  );
  expect(found).toEqual(ROUTES.map(({ method, path }) => `${method} ${path}`));
  const { parameters, responses } = paths['/v1/events'].get;
  expect(parameters.map(({ name }) => name)).toEqual([
    'topic',
    'after',
    'from',
    'since',
    'last',
    'skipRemoved',
    'heartbeat',
  ]);
  expect(Object.keys(responses['200'].content)).toEqual([
    'text/event-stream',
    'application/x-ndjson',
  ]);
  for (const { method, path } of ROUTES) {
    const answer = await ask(httpAddress, path.replace('{topic}', 'a').replace('{id}', 'a-1'), {
      method: method.toUpperCase(),
    });
    // Of these requests, some lack what they need, and none is of an unknown path or method.
    expect([path, [200, 204, 400, 404, 415].includes(answer.status)]).toEqual([path, true]);
    if (answer.status === 404) expect(answer.json).toMatchObject({ reason: 'STREAM_UNKNOWN' });
  }
});

test('other paths and methods are refused as problems', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  expect((await ask(httpAddress, '/metrics')).status).toBe(200);
  for (const path of ['/v1/nothing', '/nothing', '/console/nothing.js', '/v1/topics/a/b']) {
    const unknown = await ask(httpAddress, path);
    expect(unknown.status).toBe(404);
    expect(unknown.headers['content-type']).toBe('application/problem+json');
    expect(unknown.json).toMatchObject({ title: 'Not Found', status: 404 });
  }
  const method = await ask(httpAddress, '/v1/topics/orders', { method: 'PUT' });
  expect(method.status).toBe(405);
  expect(method.headers.allow).toBe('GET, DELETE');
});
