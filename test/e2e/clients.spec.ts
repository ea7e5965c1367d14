import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Client,
  credentials,
  loadPackageDefinition,
  type ServiceClientConstructor,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { FeedClient } from '../support/client.js';
import { runService } from '../support/service.js';
import { until } from '../support/wait.js';

/** A client of any service in a .proto file. */
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
const reflectionProto = join(
  dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json')),
  'build/proto/grpc/reflection/v1/reflection.proto',
);

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

describe('reflection', () => {
  interface ReflectionClient {
    ServerReflectionInfo(): import('@grpc/grpc-js').ClientDuplexStream<
      object,
      Record<string, never>
    >;
  }

  test('lists and describes every service', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const client = clientOf<ReflectionClient>(
      reflectionProto,
      'grpc.reflection.v1.ServerReflection',
      grpcAddress,
    );
    const ask = (question: object) =>
      new Promise<Record<string, { service: { name: string }[]; fileDescriptorProto: Buffer[] }>>(
        (resolve) => {
          const call = client.ServerReflectionInfo();
          call.on('data', (reply) => {
            resolve(reply);
            call.end();
          });
          call.write(question);
        },
      );
    const { listServicesResponse } = await ask({ listServices: '' });
    expect(listServicesResponse.service.map(({ name }) => name).sort()).toEqual([
      'feed.v1.FeedService',
      'grpc.health.v1.Health',
    ]);
    const { fileDescriptorResponse } = await ask({ fileContainingSymbol: 'feed.v1.FeedService' });
    const described = Buffer.concat(fileDescriptorResponse.fileDescriptorProto).toString('latin1');
    expect(described).toContain('UploadEvents');
  });
});
