import { expect, test } from 'vitest';
import { type Event, StartPosition } from '../../../src/gen/feed/v1/feed.js';
import { type Running, runService } from '../../../test/support/service.js';
import { until } from '../../../test/support/wait.js';
import { Event as EventCodec } from '../../src/gen/feed/v1/feed.js';
import { runFeed, startFeed } from './run-command.js';
import { freeAddress } from '../../../test/support/ports.js';

interface Row {
  readonly workload: string;
  readonly unit: string;
  readonly count: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly p50Milliseconds?: number;
  readonly p99Milliseconds?: number;
  readonly clientCpuMicroseconds: number;
  readonly topic: string;
}

function rowsOf(stdout: string): readonly Row[] {
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Row);
}

/** Returns the first `count` events of a topic. */
async function eventsOf({ client }: Running, topic: string, count: number): Promise<Event[]> {
  const events: Event[] = [];
  const watch = client.Watch({ topic, position: StartPosition.START_POSITION_EARLIEST });
  watch.on('data', (event: Event) => events.push(event)).on('error', () => {});
  await until(
    () => events.length >= count,
    () => `${count} events, not ${events.length}`,
  );
  watch.cancel();
  return events;
}

test('every workload is measured, and its events are in the topics that it names', async () => {
  const service = await runService();
  const where = ['--address', service.grpcAddress, '--topic', 'mine'];
  const size = ['--events', '2000', '--watches', '3', '--size', '50', '--seconds', '5'];
  const { code, stdout, stderr } = await runFeed(['bench', '--json', ...where, ...size]);
  expect(code, stderr).toBe(0);
  const rows = rowsOf(stdout);
  expect(rows).toMatchObject([
    { workload: 'upload', count: 2_000, topic: 'mine' },
    { workload: 'replay', count: 2_000 },
    { workload: 'acknowledgement' },
    { workload: 'delivery', count: 1_000 },
    { workload: 'fan-out', count: 3_000 },
    { workload: 'chat', count: 2_000 },
  ]);
  for (const row of rows) {
    expect(row.perSecond, row.workload).toBeGreaterThan(0);
    expect(row.clientCpuMicroseconds, row.workload).toBeGreaterThan(0);
    const isTimed = row.workload === 'acknowledgement' || row.workload === 'delivery';
    if (isTimed) expect(row.p99Milliseconds).toBeGreaterThanOrEqual(row.p50Milliseconds!);
    else expect(row.p50Milliseconds).toBeUndefined();
  }
  const uploaded = await eventsOf(service, 'mine.upload', 2_000);
  expect(uploaded).toHaveLength(2_000);
  expect(new Set(uploaded.map(({ id }) => id))).toHaveLength(2_000);
  expect(uploaded.every(({ body }) => body.length === 50)).toBe(true);
  await eventsOf(service, 'mine.fan-out', 1_000);
  await eventsOf(service, 'mine.delivery', 1_000);
  await eventsOf(service, 'mine.acknowledgement', rows[2].count);
});

/** A busy machine may need more than the default time for a workload that ends by itself. */
const UNHURRIED = ['--seconds', '60'];

test('what is stored is said before it begins, and is at least what then is stored', async () => {
  const service = await runService();
  const args = ['--only', 'upload', '--events', '1000', '--size', '1000', '--json', ...UNHURRIED];
  const { stderr, stdout } = await runFeed(['bench', '--address', service.grpcAddress, ...args]);
  const [row] = rowsOf(stdout);
  const [, megabytes, prefix] = /: up to ([\d.]+) MB in the topics (.+)\.\*,/.exec(stderr)!;
  expect(prefix).toMatch(/^feed-bench\.[\da-f]{8}$/);
  expect(row.topic).toBe(prefix);
  const events = await eventsOf(service, `${prefix}.upload`, 1_000);
  const sizeOf = ({ id, topic, body, cursor }: Event): number =>
    5 +
    EventCodec.encode({ id, topic, body, cursor, at: new Date(), attributes: {} }).finish().length;
  const bytes = events.reduce((sum, event) => sum + sizeOf(event), 0);
  expect(Number(megabytes) * 1e6).toBeGreaterThanOrEqual(bytes);
  expect(Number(megabytes) * 1e6).toBeLessThan(1.1 * bytes);
});

test('results are a table on standard output, with nothing but plain text', async () => {
  const { grpcAddress } = await runService();
  const args = ['--only', 'upload', 'chat', '--events', '100', ...UNHURRIED];
  const { code, stdout } = await runFeed(['bench', '--address', grpcAddress, ...args]);
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split('\n');
  expect(lines[0]).toMatch(/^ +per second +MB\/s +p50 ms +p99 ms +client us$/);
  expect(lines[1]).toMatch(/^upload +[\d,]+ +[\d.]+ +[\d.]+ {2}100 events stored, in [\d.]+ s$/);
  expect(lines[2]).toMatch(/^chat +[\d,]+ .* {2}100 messages echoed, in [\d.]+ s$/);
  expect(lines).toHaveLength(3);
});

test('a replay by itself first uploads what it reads', async () => {
  const { grpcAddress } = await runService();
  const args = ['--only', 'replay', '--events', '500', '--json', ...UNHURRIED];
  const { stdout } = await runFeed(['bench', '--address', grpcAddress, ...args]);
  expect(rowsOf(stdout)).toMatchObject([{ workload: 'replay', count: 500 }]);
});

test('a workload ends after --seconds, with what it has done', async () => {
  const { grpcAddress } = await runService();
  const args = ['--only', 'upload', '--events', '1000000000', '--seconds', '0.3', '--json'];
  const { code, stdout } = await runFeed(['bench', '--address', grpcAddress, ...args]);
  expect(code).toBe(0);
  const [{ count }] = rowsOf(stdout);
  expect(count).toBeGreaterThan(0);
  expect(count).toBeLessThan(1_000_000_000);
});

test('a server that refuses ends it with the reason, after what was measured', async () => {
  const { grpcAddress } = await runService({ FEED_QUOTA_BYTES: '1MiB' });
  const args = ['--only', 'upload', 'fan-out', '--events', '4000', '--json', ...UNHURRIED];
  const { code, stdout, stderr } = await runFeed(['bench', '--address', grpcAddress, ...args]);
  expect(rowsOf(stdout)).toMatchObject([{ workload: 'upload', count: 4_000 }]);
  expect(code).toBe(1);
  expect(stderr).toContain('STORAGE_FULL');
});

test('where nothing listens, it fails with the address', async () => {
  const address = await freeAddress();
  const { code, stdout, stderr } = await runFeed(['bench', '--address', address]);
  expect(code).toBe(1);
  expect(stdout).toBe('');
  expect(stderr).toContain(`can't connect to ${address}: ECONNREFUSED`);
});

test('Ctrl-C ends it, and what was measured stays', async () => {
  const { grpcAddress } = await runService();
  const args = ['--only', 'upload', 'delivery', '--events', '100', '--seconds', '600', '--json'];
  const command = startFeed(['bench', '--address', grpcAddress, ...args]);
  await until(() => command.stdout.includes('\n'), 'the first result');
  command.process.kill('SIGINT');
  const { code, stdout, stderr } = await command.ended;
  expect(code).toBe(130);
  expect(rowsOf(stdout)).toMatchObject([{ workload: 'upload', count: 100 }]);
  expect(stderr).toMatch(/\nended after 1 of 2 workloads\n$/);
});

test('a reader that goes away ends it without a word', async () => {
  const { grpcAddress } = await runService();
  const args = ['--only', 'upload', 'delivery', '--events', '100', '--seconds', '2', '--json'];
  const command = startFeed(['bench', '--address', grpcAddress, ...args]);
  await until(() => command.stdout.includes('\n'), 'the first result');
  command.process.stdout!.destroy();
  const { code, stderr } = await command.ended;
  expect(code).toBe(0);
  const isProgress = (line: string): boolean => /^\d+%, /.test(line);
  expect(
    stderr
      .trimEnd()
      .split('\n')
      .filter((line) => !isProgress(line)),
  ).toHaveLength(1);
});

test.each([
  ['--events', '0'],
  ['--watches', 'many'],
  ['--size', '15'],
  ['--seconds', '-1'],
  ['--only', 'everything'],
])('%s %s is refused', async (...args) => {
  const { code, stderr } = await runFeed(['bench', ...args]);
  expect(code).toBe(64);
  expect(stderr).toContain(args[0]);
});
