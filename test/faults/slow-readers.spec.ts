import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { expect, onTestFinished, test, type TestContext } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { codec, take, upload } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';

const STALLED = 1_000;
const CONNECTIONS = 20;
/** On how many connections one stalled watch is of the busy topic, which the healthy watches read. */
const STALLED_BUSY = 3;
const HEALTHY = 10;
/** The memory that a stalled watch may take: 64 KiB, and half as much garbage that is not collected yet. */
const KIB_EACH = 96;

/** More than a stream's window and all that is in flight to its client. */
const QUIET = { events: 100, bodyBytes: 2_000 };
/** More than the log keeps in memory, so that a watch that reads on later must read from disk. */
const BUSY = { events: 3_000, bodyBytes: 16_000 };

const eventsOf = (topic: string, { events, bodyBytes }: typeof QUIET, round: number) =>
  Array.from({ length: events }, (_, i) => ({
    topic,
    id: `${topic}-${round}-${i}`,
    body: `${i}`.padEnd(bodyBytes, '.'),
  }));

/** A watch from earliest, whose client reads nothing before read() is called. */
class Watch {
  bytes = 0;
  private readonly hash = createHash('sha256');
  private readonly stream;

  constructor(
    connection: RawClient,
    readonly topic: string,
  ) {
    this.stream = connection.open('Watch').stream;
    this.stream.end(requestFor(topic));
  }

  async started(): Promise<void> {
    await once(this.stream, 'response');
  }

  read(): this {
    this.stream.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length;
      this.hash.update(chunk);
    });
    return this;
  }

  get digest(): string {
    return this.hash.copy().digest('hex');
  }
}

function requestFor(topic: string): Buffer {
  const message = codec.watchRequest.serialize({ topic, position: 1 });
  const header = Buffer.alloc(5);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
}

async function connections(service: ServiceProcess, count: number): Promise<RawClient[]> {
  const settings = { initialWindowSize: 65_535 };
  const all = Array.from({ length: count }, () => RawClient.connect(service.grpcAddress, settings));
  onTestFinished(async () => (await Promise.all(all)).forEach((connection) => connection.close()));
  return Promise.all(all);
}

/** Returns the process's anonymous memory (memory that is not of a mapped file), in KiB. */
function anonymousMemory({ process: { pid } }: ServiceProcess): number {
  return Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
}

function needsProc(context: TestContext): void {
  if (existsSync('/proc/self/status')) return;
  console.warn('skipped: there is no /proc to see memory in');
  context.skip();
}

test('a thousand watches that nobody reads delay no other, take little memory, and get everything once they read', async (context) => {
  needsProc(context);
  const service = await ServiceProcess.start({
    FEED_DATA_DIR: temporaryDirectory(),
  });
  const client = service.connect();
  const healthy = (await connections(service, 1)).flatMap((connection) =>
    Array.from({ length: HEALTHY }, () => new Watch(connection, 'busy').read()),
  );
  const stored = { quiet: 0, busy: 0 };
  async function store(topic: 'quiet' | 'busy', size: typeof QUIET, round: number): Promise<void> {
    const events = eventsOf(topic, size, round);
    stored[topic] += events.length;
    const { result } = await upload(client, events);
    expect(result?.received).toBe(events.length);
  }
  const reached = (topic: string, watches: readonly Watch[], bytes: number): Promise<void> =>
    until(
      () => watches.every((watch) => watch.bytes >= bytes),
      () => `${bytes} bytes of ${topic}: there are ${watches.map((watch) => watch.bytes).join()}`,
      120_000,
    );
  async function flow(round: number): Promise<void> {
    await store('busy', BUSY, round);
    const least = stored.busy * BUSY.bodyBytes;
    await reached('busy', healthy, least);
  }

  // The service's memory grows to its usual size before the stalled watches begin.
  for (let round = -5; round <= 0; round++) await flow(round);
  const before = anonymousMemory(service);
  const stalled = (await connections(service, CONNECTIONS)).flatMap((connection, number) =>
    Array.from(
      { length: STALLED / CONNECTIONS },
      (_, i) => new Watch(connection, i === 0 && number < STALLED_BUSY ? 'busy' : 'quiet'),
    ),
  );
  await Promise.all(stalled.map((watch) => watch.started()));
  for (let round = 1; round <= 3; round++) {
    await store('quiet', QUIET, round);
    await flow(round);
  }
  const grown = () => anonymousMemory(service) - before;
  const most = KIB_EACH * STALLED;
  // Garbage that V8 has not collected yet does not count: more events make V8 collect it.
  for (let round = 4; grown() > most && round < 10; round++) await flow(round);
  console.log(
    `anonymous memory grew by ${(grown() / STALLED).toFixed(1)} KiB for each stalled watch`,
  );
  expect(grown()).toBeLessThanOrEqual(most);

  // The stalled watches get all events in order: the same bytes as a watch whose events are decoded and checked.
  const [busy, quiet] = ['busy', 'quiet'].map((topic) =>
    stalled.filter((one) => one.topic === topic),
  );
  const ids = (await take(client, { topic: 'quiet', position: 1 }, stored.quiet)).map(
    ({ id }) => id,
  );
  expect(ids).toEqual(
    [1, 2, 3].flatMap((round) => eventsOf('quiet', QUIET, round).map(({ id }) => id)),
  );
  const [reference] = (await connections(service, 1)).map((one) => new Watch(one, 'quiet').read());
  await reached('quiet', [reference], stored.quiet * QUIET.bodyBytes);
  for (const watch of stalled) watch.read();
  await until(() => quiet.every(({ bytes }) => bytes === reference.bytes), 'what stalled', 120_000);
  expect(new Set(quiet.map(({ digest }) => digest))).toEqual(new Set([reference.digest]));
  await until(() => busy.every(({ bytes }) => bytes === healthy[0].bytes), 'the rest', 120_000);
  expect(new Set(busy.map(({ digest }) => digest))).toEqual(new Set([healthy[0].digest]));
}, 480_000);

test('a thousand watches that nobody reads take little memory also far behind the events in memory', async (context) => {
  needsProc(context);
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const batch = Buffer.concat(
    Array.from({ length: 1_000 }, () =>
      frame(codec.event.serialize({ topic: 'deep', body: 'x'.repeat(150) })),
    ),
  );
  const [uploader, reader] = await connections(service, 2);
  const readers = Array.from({ length: 4 }, () => new Watch(reader, 'deep').read());
  let least = 0;
  /** Uploads 100,000 events, 24 MB as they are stored, and waits until each reader has got them. */
  async function flow(): Promise<void> {
    const call = uploader.open('UploadEvents').drop();
    for (let i = 0; i < 100; i++) if (!call.stream.write(batch)) await once(call.stream, 'drain');
    call.stream.end();
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    least += 100 * batch.length;
    await until(() => readers.every(({ bytes }) => bytes >= least), 'all of it', 60_000);
  }
  for (let i = 0; i < 6; i++) await flow();
  const before = anonymousMemory(service);
  // The connection's window is open and each stream's is used up, so that each watch holds the batch that it can't send.
  const stalled = (await connections(service, CONNECTIONS)).flatMap((connection) => {
    connection.session.setLocalWindowSize(256 * 1024 * 1024);
    return Array.from({ length: STALLED / CONNECTIONS }, () => new Watch(connection, 'deep'));
  });
  await Promise.all(stalled.map((watch) => watch.started()));
  for (let i = 0; i < 3; i++) await flow();
  const grown = (): number => anonymousMemory(service) - before;
  // Garbage that V8 has not collected yet does not count: more events make V8 collect it.
  for (let more = 0; grown() > KIB_EACH * STALLED && more < 10; more++) await flow();
  console.log(`far behind: ${(grown() / STALLED).toFixed(1)} KiB for each stalled watch`);
  expect(grown()).toBeLessThanOrEqual(KIB_EACH * STALLED);
}, 480_000);
