// node test/formats/make.ts CHECKOUT: makes a log with the built version in CHECKOUT, and adds it to the logs that every later version
// must open (formats.spec.ts): the file of LMDB and what it holds. Run it with each version that writes another format.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import {
  type Client,
  credentials,
  type GrpcObject,
  loadPackageDefinition,
  type ServiceClientConstructor,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { open } from 'lmdb';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import type { FeedClient } from '../support/client.js';

const checkout = process.argv[2];
const directory = mkdtempSync(join(tmpdir(), 'feed-format-'));
const proto = join(checkout, 'proto');
const definition = loadSync(join(proto, 'feed/v1/feed.proto'), { includeDirs: [proto] });
const { v1 } = loadPackageDefinition(definition).feed as GrpcObject;
const FeedService = (v1 as GrpcObject).FeedService as ServiceClientConstructor;

/** Runs the service while `work` uses it. */
async function withService(
  settings: Readonly<Record<string, string>>,
  work: (client: FeedClient) => Promise<void>,
): Promise<void> {
  const address = '127.0.0.1:50997';
  const service = spawn(process.execPath, [join(checkout, 'dist/main.js')], {
    cwd: checkout,
    env: {
      PATH: process.env.PATH,
      FEED_GRPC_ADDRESS: address,
      FEED_HTTP_ADDRESS: '127.0.0.1:50998',
      FEED_DATA_DIR: directory,
      ...settings,
    },
    stdio: 'inherit',
  });
  const client = new FeedService(address, credentials.createInsecure()) as unknown as Client &
    FeedClient;
  await new Promise<void>((resolve, reject) =>
    client.waitForReady(Date.now() + 20_000, (error) => (error ? reject(error) : resolve())),
  );
  await work(client);
  client.close();
  service.kill('SIGTERM');
  await new Promise((resolve) => service.once('exit', resolve));
}

const upload = (client: FeedClient, events: readonly Partial<Event>[]): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const call = client.UploadEvents((error, result) => (error ? reject(error) : resolve(result)));
    for (const event of events) call.write(event);
    call.end();
  });

/** Returns the events that a topic holds. */
async function held(client: FeedClient, topic: string): Promise<object[]> {
  const call = client.Watch({ topic, position: 1 });
  const events: object[] = [];
  call.on('data', ({ id, body, cursor }: Event) =>
    events.push({ id, bodyLength: body.length, cursor }),
  );
  call.on('error', () => {});
  await sleep(1_000);
  call.cancel();
  return events;
}

const numbered = (topic: string, from: number, count: number, size: number): Partial<Event>[] =>
  Array.from({ length: count }, (_, i) => {
    const id = String(from + i);
    return { id, topic, body: id.padEnd(size, '.') };
  });

await withService({}, async (client) => {
  await upload(client, [...numbered('a', 0, 40, 100), ...numbered('b.c', 0, 5, 9_000)]);
  for (let i = 40; i < 50; i++) await upload(client, numbered('a', i, 1, 10));
});
const topics: Record<string, object[]> = {};
// The second opening has another epoch, and removes the oldest events of each topic.
await withService({ FEED_RETENTION_TOPIC_MAX_BYTES: '30KiB' }, async (client) => {
  await upload(client, [...numbered('b.c', 5, 1, 100), ...numbered('a', 50, 3, 1_000)]);
  await sleep(3_000);
  for (const topic of ['a', 'b.c', 'none']) topics[topic] = await held(client, topic);
});
const root = open({ path: join(directory, 'log'), maxDbs: 8, readOnly: true });
const format = root.openDB({ name: 'meta', encoding: 'json' }).get('format');
await root.close();
const to = new URL('.', import.meta.url).pathname;
const file = readFileSync(join(directory, 'log', 'data.mdb'));
writeFileSync(join(to, `format-${format}.mdb.gz`), gzipSync(file, { level: 9 }));
writeFileSync(join(to, `format-${format}.json`), `${JSON.stringify(topics)}\n`);
rmSync(directory, { recursive: true });
console.log(
  `format ${format}:`,
  Object.entries(topics)
    .map(([topic, { length }]) => `${topic} ${length}`)
    .join(', '),
);
