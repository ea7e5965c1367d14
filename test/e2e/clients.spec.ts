import { execFile } from 'node:child_process';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  type Client,
  type ClientDuplexStream,
  credentials,
  loadPackageDefinition,
  type ServiceClientConstructor,
  status,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { FeedClient } from '../support/client.js';
import { runService } from '../support/service.js';
import { until } from '../support/wait.js';

/** Makes a client of a service that a .proto file declares. */
function clientOf<T>(proto: string, service: string, address: string): T {
  const loaded = loadPackageDefinition(loadSync(proto, { includeDirs: [dirname(proto)] }));
  const constructor = service
    .split('.')
    .reduce<unknown>((scope, name) => (scope as Record<string, unknown>)[name], loaded);
  const client: Client = new (constructor as ServiceClientConstructor)(
    address,
    credentials.createInsecure(),
  );
  onTestFinished(() => client.close());
  return client as unknown as T;
}

const smallest = fileURLToPath(new URL('../support/smallest.proto', import.meta.url));
describe('a client generated from the smallest form of the contract', () => {
  test('watches live events, uploads, and gets its echo', async () => {
    const { grpcAddress, client: full } = await runService();
    const client = clientOf<FeedClient>(smallest, 'feed.v1.FeedService', grpcAddress);
    const watch = client.Watch({ topic: 'orders' });
    const events: unknown[] = [];
    watch.on('error', () => {});
    watch.on('data', (event) => events.push(event));
    await new Promise((resolve) => watch.on('metadata', resolve));
    const received = await new Promise((resolve) => {
      const call = client.UploadEvents((_error, result) => resolve(result));
      call.write({ id: 'a', topic: 'orders', body: 'hello' });
      call.end();
    });
    expect(received).toEqual({ received: 1 });
    await until(() => events.length === 1, 'the event');
    expect(events[0]).toMatchObject({ id: 'a', topic: 'orders', body: 'hello' });
    watch.cancel();

    const chat = client.Chat();
    chat.write({ from: 'me', text: 'hello' });
    const answer = await new Promise((resolve) => chat.on('data', resolve));
    expect(answer).toEqual({ from: 'server', text: 'echo: hello' });
    chat.end();
    await new Promise((resolve) => chat.on('end', resolve));
    full.close();
  });
});

describe('health', () => {
  interface HealthClient {
    Check(
      request: { service: string },
      callback: (error: { code: number } | null, reply?: { status: unknown }) => void,
    ): void;
  }

  test('is SERVING for the server and the service, over gRPC and HTTP; another service is unknown', async () => {
    const { grpcAddress, httpAddress } = await runService({ FEED_ENGINE: 'memory' });
    const health = clientOf<HealthClient>(healthProto, 'grpc.health.v1.Health', grpcAddress);
    const check = (service: string) =>
      new Promise((resolve) =>
        health.Check({ service }, (error, reply) => resolve(error?.code ?? reply?.status)),
      );
    expect(await check('')).toBe(1);
    expect(await check('feed.v1.FeedService')).toBe(1);
    expect(await check('other')).toBe(5);
    for (const path of ['healthz', 'readyz']) {
      expect((await fetch(`http://${httpAddress}/${path}`)).status).toBe(200);
    }
  });
});

const reflectionProto = fileURLToPath(
  new URL(
    '../../node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto',
    import.meta.url,
  ),
);

interface Answer {
  readonly originalRequest: object;
  readonly errorResponse: { readonly errorCode: number } | null;
}

interface ReflectionClient {
  ServerReflectionInfo(): ClientDuplexStream<object, Answer>;
}

describe('reflection', () => {
  /** Runs `buf curl`, which learns the service's methods by reflection alone, as grpcurl does. */
  async function bufCurl(address: string, ...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(
      fileURLToPath(new URL('../../node_modules/.bin/buf', import.meta.url)),
      ['curl', '--protocol', 'grpc', '--http2-prior-knowledge', ...args].map((arg) =>
        arg.startsWith('/') ? `http://${address}${arg}` : arg,
      ),
    );
    return stdout;
  }

  test('lists every method, and is enough to call them', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const methods = (await bufCurl(grpcAddress, '--list-methods', '/')).trim().split('\n');
    expect(methods).toEqual(
      expect.arrayContaining([
        'feed.v1.FeedService/Chat',
        'feed.v1.FeedService/UploadEvents',
        'feed.v1.FeedService/Watch',
        'grpc.health.v1.Health/Check',
      ]),
    );
    const upload = ['-d', '{"topic": "orders", "body": "a"} {"topic": "orders", "body": "b"}'];
    const result = JSON.parse(
      await bufCurl(grpcAddress, ...upload, '/feed.v1.FeedService/UploadEvents'),
    ) as object;
    expect(result).toMatchObject({ received: 2, durability: 'DURABILITY_MEMORY' });
    const chat = ['-d', '{"from": "me", "text": "hello"}'];
    expect(JSON.parse(await bufCurl(grpcAddress, ...chat, '/feed.v1.FeedService/Chat'))).toEqual({
      from: 'server',
      text: 'echo: hello',
    });
    const refused = await bufCurl(
      grpcAddress,
      '-d',
      '{"topic": ""}',
      '/feed.v1.FeedService/Watch',
    ).catch((error: { stderr: string }) => error.stderr);
    expect(JSON.parse(refused)).toMatchObject({
      code: 'invalid_argument',
      details: [{ type: 'google.rpc.ErrorInfo' }],
    });
  });

  const INHERITED = ['constructor', 'toString', 'hasOwnProperty', '__proto__'];
  test.each<[string, (name: string) => object]>([
    ['a symbol', (fileContainingSymbol) => ({ fileContainingSymbol })],
    ['a file', (fileByFilename) => ({ fileByFilename })],
    ['the extensions of a type', (type) => ({ allExtensionNumbersOfType: type })],
    [
      'an extension',
      (containingType) => ({ fileContainingExtension: { containingType, extensionNumber: 1 } }),
    ],
  ])('does not find %s by a name that each object of JavaScript has', async (_what, ask) => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const service = 'grpc.reflection.v1.ServerReflection';
    const client = clientOf<ReflectionClient>(reflectionProto, service, grpcAddress);
    const call = client.ServerReflectionInfo();
    const answers: Answer[] = [];
    call.on('data', (answer: Answer) => answers.push(answer));
    for (const name of [...INHERITED, 'nothing']) call.write(ask(name));
    call.end();
    await new Promise((resolve) => call.on('end', resolve));
    expect(answers.map(({ errorResponse }) => errorResponse?.errorCode)).toEqual(
      Array<number>(INHERITED.length + 1).fill(status.NOT_FOUND),
    );
    expect(answers.map(({ originalRequest }) => originalRequest)).toMatchObject(
      [...INHERITED, 'nothing'].map(ask),
    );
  });

  test('lists the services whatever the text of the request is', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const service = 'grpc.reflection.v1.ServerReflection';
    const client = clientOf<ReflectionClient>(reflectionProto, service, grpcAddress);
    const call = client.ServerReflectionInfo();
    call.write({ listServices: '__proto__' });
    call.end();
    const answer = await new Promise((resolve) => call.on('data', resolve));
    expect(answer).toHaveProperty('listServicesResponse.service');
  });
});
