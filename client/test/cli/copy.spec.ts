import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { connect, Event, type NewEvent } from '@feed-events/client';
import { randomFrom } from '../../../test/support/random.js';
import { type ServiceProcess, temporaryDirectory } from '../../../test/support/service.js';
import { eventually, standstill, until, within } from '../../../test/support/wait.js';
import { FaultProxy } from '../fault-proxy.js';
import { events, ScriptedServer, status, storeUpload } from '../scripted-server.js';
import { bodies, client, numbers, Subject } from '../service.js';
import { type Ending, type RunningCommand, runFeed, startFeed, startShell } from './run-command.js';
import { certificate, tlsProxy } from './servers.js';
import { startService, store } from './topic.js';

/** Returns all events that a server holds, in the order of its log. */
async function allOf(address: string): Promise<Event[]> {
  await using feed = connect(address);
  const found: Event[] = [];
  for await (const event of feed.watch('>', { from: 'earliest', until: 'head' })) found.push(event);
  return found;
}

/** Returns the events of each topic, without their cursors. */
function byTopic(found: readonly Event[]): Record<string, object[]> {
  const topics: Record<string, object[]> = {};
  for (const { cursor: _, ...event } of found) (topics[event.topic] ??= []).push(event);
  return topics;
}

interface State {
  readonly acknowledged: string;
  readonly read: string;
}

/** A copy from one service into another, with a checkpoint of its own. */
class Copy {
  readonly checkpoint = join(temporaryDirectory(), 'copy.json');

  constructor(
    readonly from: string,
    readonly to: string,
  ) {}

  start(...args: string[]): RunningCommand {
    return startFeed(['copy', this.from, this.to, '--checkpoint', this.checkpoint, ...args]);
  }

  run(...args: string[]): Promise<Ending> {
    return this.start(...args).ended;
  }

  get state(): State | undefined {
    if (!existsSync(this.checkpoint)) return undefined;
    return JSON.parse(readFileSync(this.checkpoint, 'utf8')) as State;
  }

  /** Compares both logs. */
  async check(): Promise<void> {
    const copied = byTopic(await allOf(this.to));
    const wanted = byTopic(await allOf(this.from));
    expect(Object.keys(copied).toSorted()).toEqual(Object.keys(wanted).toSorted());
    for (const [topic, list] of Object.entries(wanted)) expect(copied[topic]).toEqual(list);
  }
}

async function startBoth(
  settings: { readonly from?: Record<string, string>; readonly to?: Record<string, string> } = {},
): Promise<{ from: ServiceProcess; to: ServiceProcess; copy: Copy }> {
  const [from, to] = await Promise.all([startService(settings.from), startService(settings.to)]);
  return { from, to, copy: new Copy(from.grpcAddress, to.grpcAddress) };
}

/** Kills a copy while the other server answers nothing: the command can't know whether that has the events. */
async function leaveInDoubt(to: ServiceProcess, copy: Copy): Promise<void> {
  to.process.kill('SIGSTOP');
  const killed = copy.start();
  await until(() => (copy.state?.read ?? '') !== '', 'events that are about to be sent');
  killed.process.kill('SIGKILL');
  await killed.ended;
  to.process.kill('SIGCONT');
}

describe('feed copy', () => {
  test('stores all events in another log, as they are, and the next run what has come since', async () => {
    const { from, copy } = await startBoth();
    await using feed = connect(from.grpcAddress);
    await feed.upload('orders.eu', [
      { id: 'a', body: 'ünïcödé', attributes: { traceparent: '00-1', empty: '' } },
      { id: 'b', at: new Date(86_400_000) },
    ]);
    await feed.upload('bills', numbers(0, 1_000));
    const first = await copy.run();
    expect(first.code, first.stderr).toBe(0);
    expect(first.stdout).toBe('');
    expect(first.stderr).toMatch(/^\S+copy\.json keeps how far the copy has come\n/);
    expect(first.stderr).toMatch(/\n1,002 events copied; [\d.]+ s; [\d,]+\/s\n$/);
    await copy.check();

    await feed.upload('bills', ['new']);
    const second = await copy.run();
    expect(second.stderr).toMatch(/^going on where \S+copy\.json says\n/);
    expect(second.stderr).toMatch(/\n1 event copied; /);
    await copy.check();
    expect((await copy.run()).stderr).toMatch(/\n0 events copied; [\d.]+ s\n$/);
  });

  test('keeps what the client does not decode, such as nanoseconds', async () => {
    const { from, to, copy } = await startBoth();
    const at = { seconds: 17, nanos: 123_456_789 };
    const upload = from.connect().UploadEvents(() => {});
    upload.end({ id: 'a', topic: 't', body: 'x', at });
    await once(upload, 'status');
    expect((await copy.run()).code).toBe(0);
    const watch = to.connect().Watch({ topic: 't', position: 'START_POSITION_EARLIEST' as never });
    watch.on('error', () => {});
    const [event] = (await once(watch, 'data')) as [{ at: { seconds: number; nanos: number } }];
    watch.cancel();
    expect(event.at).toEqual(at);
  });

  test('keeps an attribute by a name that objects have already', async () => {
    const { from, copy } = await startBoth();
    const attributes = JSON.parse('{"__proto__":"x"}') as Record<string, string>;
    await using feed = connect(from.grpcAddress);
    await feed.upload('t', [{ id: 'a', attributes }]);
    expect((await copy.run()).code).toBe(0);
    const [event] = await allOf(copy.to);
    expect(Object.entries(event.attributes)).toEqual([['__proto__', 'x']]);
  });

  test('copies an event of the largest size, because it sends no cursor', async () => {
    const settings = { FEED_MAX_EVENT_BYTES: '1KiB' };
    const { from, copy } = await startBoth({ from: settings, to: settings });
    const event = { id: 'a', topic: 't', at: new Date(86_400_000), cursor: '', attributes: {} };
    const sizeOf = (body: string): number => Event.encode({ ...event, body }).finish().length;
    const body = 'x'.repeat(1_000 - (sizeOf('x'.repeat(1_000)) - 1_024));
    expect(sizeOf(body)).toBe(1_024);
    await using feed = connect(from.grpcAddress);
    await feed.upload('t', [{ ...event, body }, 'after']);
    const { code, stderr } = await copy.run();
    expect(code, stderr).toBe(0);
    await copy.check();
  });

  test('copies some topics, and the empty log', async () => {
    const { from, copy } = await startBoth();
    expect((await copy.run('--topics', 'orders.*.paid', 'bills')).stderr).toContain('0 events');
    for (const topic of ['orders.eu.paid', 'orders.eu.sent', 'bills', 'other'])
      await store(from.grpcAddress, topic, [topic]);
    const { code, stderr } = await copy.run('--topics', 'orders.*.paid', 'bills');
    expect(code, stderr).toBe(0);
    expect(bodies(await allOf(copy.to))).toEqual(['orders.eu.paid', 'bills']);
  });

  test('has every event once and in order, though the copy and both servers are killed again and again', async () => {
    const random = randomFrom(Number(process.env.FEED_TEST_SEED ?? 1));
    const services = { from: await Subject.start(), to: await Subject.start() };
    const copy = new Copy(services.from.address, services.to.address);
    const topics = ['a', 'b.c', 'b.d', 'e'];
    const source = { isOver: false, count: 0 };
    async function* produce(): AsyncGenerator<NewEvent> {
      while (!source.isOver) {
        for (let i = 0; i < 40; i++)
          yield { topic: topics[random(topics.length)], body: String(source.count++).padEnd(200) };
        await sleep(10);
      }
    }
    const upload = client(copy.from).upload('a', produce());
    upload.catch(() => {}); // awaited below
    let running = copy.start('--follow');
    const goesOn = async (): Promise<void> => {
      const before = copy.state?.acknowledged ?? '';
      await until(
        () => (copy.state?.acknowledged ?? '') > before,
        () => `events that are copied; it has said ${running.stderr}`,
        120_000,
      );
    };
    for (let kill = 0; kill < 6; kill++) {
      await goesOn();
      await sleep(random(300));
      const which = (['copy', 'from', 'to'] as const)[kill % 3];
      if (which === 'copy') {
        running.process.kill('SIGKILL');
        await running.ended;
        running = copy.start('--follow');
      } else {
        await services[which].service.kill('SIGKILL');
        await services[which].restart();
      }
    }
    source.isOver = true;
    await within(upload, 'the upload', 60_000);
    running.process.kill('SIGINT');
    const { code, stderr } = await running.ended;
    // It does not wait for a server that it could not connect to yet.
    expect([0, 130], stderr).toContain(code);
    const last = await copy.run();
    expect(last.code, last.stderr).toBe(0);
    await copy.check();
    expect((await allOf(copy.to)).length).toBe(source.count);
  }, 600_000);

  test('says that a server is away, and goes on when it is back', async () => {
    const services = { from: await Subject.start(), to: await Subject.start() };
    const copy = new Copy(services.from.address, services.to.address);
    await store(copy.from, 't', ['1']);
    const running = copy.start('--follow');
    await eventually(async () => expect(bodies(await allOf(copy.to))).toEqual(['1']));
    await until(() => running.stderr.includes('; following what comes\n'), 'a copy that follows');
    for (const which of ['from', 'to'] as const) {
      await services[which].service.kill('SIGKILL');
      if (which === 'to') await store(copy.from, 't', ['2']);
      const away = `can't connect to ${copy[which]}: ECONNREFUSED; trying again\n`;
      await until(
        () => running.stderr.includes(away),
        () => `"${away}" in ${running.stderr}`,
      );
      await services[which].restart();
      const back = `connected again to ${copy[which]}\n`;
      await until(
        () => running.stderr.includes(back),
        () => `"${back}" in ${running.stderr}`,
      );
    }
    await eventually(async () => expect(bodies(await allOf(copy.to))).toEqual(['1', '2']));
    // After the signal, the acknowledgement would have only 3 s.
    const [, { cursor }] = await allOf(copy.from);
    await until(() => copy.state?.acknowledged === cursor, 'the acknowledgement');
    running.process.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ code: 0, stdout: '' });
    expect(running.stderr).toMatch(/\ninterrupted: 2 events copied; /);
  });

  test('reads little ahead of what it can store, and Ctrl-C ends it in order', async () => {
    const { from, to } = await startBoth();
    const proxy = await FaultProxy.start(() => from.grpcAddress);
    const copy = new Copy(proxy.address, to.grpcAddress);
    const body = 'x'.repeat(1_000);
    await store(
      from.grpcAddress,
      't',
      numbers(0, 50_000).map((n) => `${n} ${body}`),
    );
    to.process.kill('SIGSTOP');
    const running = copy.start();
    await until(() => proxy.toClientBytes > 1_000_000, 'events that are read');
    // 50 MB are to be had. 8 MiB wait for their acknowledgement, and a block, the window and the sockets hold some.
    expect(await standstill(() => proxy.toClientBytes)).toBeLessThan(25_000_000);
    running.process.kill('SIGINT');
    to.process.kill('SIGCONT');
    const { code, stderr } = await running.ended;
    expect(code, stderr).toBe(130);
    // On a busy machine, what was read may not be acknowledged within the 3 s that it has.
    expect(stderr).toMatch(/\n(interrupted|ended): [\d,]+ events copied; /);
    const last = await copy.run();
    expect(last.code, last.stderr).toBe(0);
    await copy.check();
  });

  test('goes on after a kill with what is held, where an earlier deletion is in its way', async () => {
    const { from, to, copy } = await startBoth();
    const wide = (count: number): string[] => numbers(0, count).map((n) => n.padEnd(1_000));
    await store(from.grpcAddress, 'a', wide(30_000));
    await store(from.grpcAddress, 'b', ['x']);
    await runFeed(['topic', 'b', '--delete', '--address', from.grpcAddress]);
    await store(from.grpcAddress, 'c', ['y']);
    const killed = copy.start();
    await until(() => (copy.state?.acknowledged ?? '') !== '', 'events that are copied');
    to.process.kill('SIGSTOP');
    killed.process.kill('SIGKILL');
    await killed.ended;
    to.process.kill('SIGCONT');
    const { code, stderr } = await copy.run('--fail-on-gap');
    expect(code, stderr).toBe(0);
    await copy.check();
  });

  test('says what was removed before it was read, and goes on; with --fail-on-gap it ends with 1', async () => {
    const { from, copy } = await startBoth();
    await store(from.grpcAddress, 'a', ['1']);
    expect((await copy.run()).code).toBe(0);
    await store(from.grpcAddress, 'a', ['2']);
    await store(from.grpcAddress, 'b', ['gone']);
    await runFeed(['topic', 'b', '--delete', '--address', from.grpcAddress]);
    const failed = await copy.run('--fail-on-gap');
    expect(failed.code, failed.stderr).toBe(1);
    expect(failed.stderr).toMatch(
      new RegExp(`feed: ${copy.from}: .*CURSOR_EXPIRED.*leave --fail-on-gap out\n$`),
    );
    const { code, stderr } = await copy.run();
    expect(code, stderr).toBe(0);
    expect(stderr).toContain(`a gap: ${copy.from} removed events after `);
    expect(stderr).toMatch(/\n1 event copied; 1 gap; /);
    await copy.check();
  });

  test('past the deduplication window says what may be stored twice, and --doubtful decides', async () => {
    const { from, to, copy } = await startBoth({ to: { FEED_DEDUP_WINDOW: '1s' } });
    await store(from.grpcAddress, 't', numbers(0, 10));
    await leaveInDoubt(to, copy);
    await sleep(1_000); // the window
    await store(from.grpcAddress, 't', ['10']);
    const undecided = await copy.run();
    expect(undecided.code, undecided.stderr).toBe(75);
    expect(undecided.stderr).toContain(': 10 events after the start. ');
    expect(undecided.stderr).toContain('--doubtful again');
    const before = bodies(await allOf(copy.to));
    const skipped = await copy.run('--doubtful', 'skip');
    expect(skipped.code, skipped.stderr).toBe(0);
    expect(skipped.stderr).toMatch(/; skipped\n1 event copied; [\d.]+ s; /);
    expect(bodies(await allOf(copy.to)).slice(before.length)).toEqual(['10']);
  });

  test('stores events in doubt again where it is told to', async () => {
    const { from, to, copy } = await startBoth({ to: { FEED_DEDUP_WINDOW: '0s' } });
    await store(from.grpcAddress, 't', numbers(0, 10));
    await leaveInDoubt(to, copy);
    const again = await copy.run('--doubtful', 'again');
    expect(again.code, again.stderr).toBe(0);
    expect(again.stderr).toMatch(/; stored again\n10 events copied; [\d.]+ s; /);
    expect(bodies(await allOf(copy.to)).slice(-10)).toEqual(numbers(0, 10));
  });

  test('goes on where the events in doubt were removed meanwhile', async () => {
    const { from, to, copy } = await startBoth();
    await store(from.grpcAddress, 't', numbers(0, 10));
    await leaveInDoubt(to, copy);
    await runFeed(['topic', 't', '--delete', '--address', from.grpcAddress]);
    await store(from.grpcAddress, 'u', ['left']);
    const { code, stderr } = await copy.run();
    expect(code, stderr).toBe(0);
    expect(bodies(await allOf(copy.to)).at(-1)).toBe('left');
  });

  test('counts the ids that the other log has had, and stores none of them twice', async () => {
    const { from, copy } = await startBoth();
    for (const address of [copy.from, copy.to]) {
      await using feed = connect(address);
      await feed.upload('t', [{ id: 'a' }, { id: 'b' }]);
    }
    await store(from.grpcAddress, 't', ['c']);
    expect((await copy.run()).stderr).toContain('1 event copied; 2 more were there before; ');
    expect((await allOf(copy.to)).length).toBe(3);
  });

  test('names the event that the other server refuses', async () => {
    const { from, copy } = await startBoth({ to: { FEED_MAX_EVENT_BYTES: '1KiB' } });
    await store(from.grpcAddress, 't', ['1', 'x'.repeat(2_000), '3']);
    const [, { cursor }] = await allOf(copy.from);
    const { code, stderr } = await copy.run();
    expect(code).toBe(1);
    expect(stderr).toContain(
      `feed: ${copy.to}: the event of the cursor ${cursor} in ${copy.from}: `,
    );
    expect(stderr).toContain('(EVENT_INVALID). ');
    expect(bodies(await allOf(copy.to))).toEqual(['1']);
  });

  test('asks each server with its own token', async () => {
    const stored: string[] = [];
    const from = await ScriptedServer.start(events('hello'));
    const to = await ScriptedServer.start(storeUpload(stored));
    const path = join(temporaryDirectory(), 'copy.json');
    const { code, stderr } = await startFeed(
      ['copy', from.address, to.address, '--checkpoint', path],
      { FEED_TOKEN: 'one', FEED_TO_TOKEN: 'two', FEED_ADDRESS: 'unused:1' },
    ).ended;
    expect(code, stderr).toBe(0);
    expect(stored).toEqual(['hello']);
    expect(from.calls.map(({ authorization }) => authorization)).toEqual(['Bearer one']);
    expect(to.calls.map(({ authorization }) => authorization)).toEqual(['Bearer two']);
  });

  test('connects to the second server by TLS of its own', async () => {
    const { from, to } = await startBoth();
    await store(from.grpcAddress, 't', ['hello']);
    const secured = await tlsProxy(to.grpcAddress, { asksForCertificate: true });
    const copy = new Copy(from.grpcAddress, secured);
    const args = ['--to-ca', certificate('ca.pem'), '--to-cert', certificate('client.pem')];
    const { code, stderr } = await copy.run(...args, '--to-key', certificate('client.key'));
    expect(code, stderr).toBe(0);
    expect(bodies(await allOf(to.grpcAddress))).toEqual(['hello']);
    expect((await copy.run('--to-cert', '/dev/null')).stderr).toContain('FEED_TO_CLIENT_TLS_KEY');
  });

  test('goes on with the same copy only, and refuses what can not work', async () => {
    const { copy } = await startBoth();
    expect((await copy.run()).code).toBe(0);
    const { checkpoint, from, to } = copy;
    const other = join(temporaryDirectory(), 'other.json');
    writeFileSync(other, 'something else');
    for (const [args, code, text] of [
      [[from, '127.0.0.1:1', '--checkpoint', checkpoint], 64, `a copy to ${to}, not 127.0.0.1:1`],
      [[to, '127.0.0.1:1', '--checkpoint', checkpoint], 64, `a copy from ${from}, not ${to}`],
      [
        [from, to, '--checkpoint', checkpoint, '--topics', 'a'],
        64,
        'a copy of the topics >, not a',
      ],
      [[from, to, '--topics', 'a', 'b c'], 64, '--topics: "b c": it has white space'],
      [[from, to, '--topics', 'a..b'], 64, 'an empty token between its dots'],
      [[from, to, '--topics', 'a.>.b'], 64, '">" for all tokens at the end'],
      [[from, to, '--topics', 'é'.repeat(101)], 64, 'it has 202 bytes, over the limit of 200'],
      [[from, from], 64, "can't be copied into itself"],
      [[from, 'a:b:c'], 64, '<to>: "a:b:c" is not an address'],
      [[from, to, '--address', from], 64, 'leave --address out'],
      [[from], 64, "missing required argument 'to'"],
      [[from, to, '--checkpoint', other], 66, 'is no checkpoint of a copy'],
      [[from, to, '--checkpoint', '/no/such/file'], 66, '/no/such/file'],
    ] as const) {
      const ending = await runFeed(['copy', ...args]);
      expect(ending.stderr).toContain(text);
      expect(ending.code, ending.stderr).toBe(code);
    }
  }, 600_000);

  test('a topic that only the server finds wrong is none to go on with', async () => {
    const refusal = { reason: 'TOPIC_INVALID', metadata: { index: '0' } };
    const server = await ScriptedServer.start(status(3, 'topics[0]: no', refusal));
    const copy = new Copy(server.address, '127.0.0.1:1');
    const { code, stderr } = await copy.run('--topics', 'a');
    expect(stderr).toMatch(/\(TOPIC_INVALID\)\. Give others in --topics\n$/);
    expect(code).toBe(1);
  });

  test('keeps its checkpoint in the current directory, by the names of the servers', async () => {
    const { copy } = await startBoth();
    const directory = temporaryDirectory();
    const shell = startShell(`cd ${directory} && feed copy ${copy.from} ${copy.to} && ls`);
    const { stdout, stderr } = await shell.ended;
    const name = (address: string): string => address.replace(':', '_');
    expect(stdout, stderr).toBe(`feed-copy.${name(copy.from)}.${name(copy.to)}.json\n`);
  });
});
