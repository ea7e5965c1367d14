import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Link } from '../../bench/link.ts';
import { LINGER } from '../../src/grpc/transport/unread.js';
import { connect, upload } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { type AtEnd, ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { encodeChat } from '../wire/events.js';
import {
  clientsOf,
  counted,
  NOTHING,
  type Observed,
  OpenSets,
  type OpenSetsOptions,
} from './open-sets.js';
import { heap, readers, socketsOf } from './outside.js';
import { ServiceLog } from './service-log.js';
import { BLOCKED_ROOM, FULL_TOPIC, type SetName, SETS } from './stream-sets.js';

/** The streams of each of the nine sets; by default, about a thousand streams in all. */
const STREAMS = Number(process.env.FEED_TEST_STREAMS ?? 112);
const CONNECTIONS = [1, 50];

/** How long (milliseconds) it may take on a busy machine until a release is seen. The service logs its counts once a second. */
const AT_ONCE = Math.max(30_000, 30 * STREAMS);
/** How long (milliseconds) a test may take. It is the sum of what its waits may take, which only a test that fails reaches. */
const TIMEOUT = 480_000 + 600 * STREAMS;
/**
 * FEED_KEEPALIVE_TIME and FEED_KEEPALIVE_TIMEOUT, in seconds: the defaults, unless there are so many streams that their client, one
 * process, may stand still for ten seconds on a busy machine. The service would take it for dead, as it should.
 */
const KEEPALIVE = { time: 30, timeout: Math.max(10, Math.round(0.06 * STREAMS)) };
/** How long (seconds) after a network died its client is gone (docs/protocol.md, "Dead or slow"), and its streams have ended. */
const CUT = KEEPALIVE.time + KEEPALIVE.timeout + 5;
const DRAIN_TIMEOUT = 1_000;
/** The shortest deadline (milliseconds): it leaves time to open the streams, unless the machine is very busy. */
const LEAST_DEADLINE = Math.max(30_000, 60 * STREAMS);
/**
 * How long before their deadline uploads are blocked: less than LINGER, after which they would be reset. A busy machine needs
 * longer to block hundreds.
 */
const BLOCKED_BEFORE_DEADLINE = Math.max(LINGER - 200, 15 * STREAMS);
/** More MiB than retention keeps on disk, and than the log keeps in memory. */
const OVERTAKEN = 34;
/** How far the service's timers and the log's time may differ (milliseconds). */
const DEADLINE_MARGIN = 20;

/** The classes of the objects of a stream and its connection. None of these objects may stay when all streams have ended. */
const OF_STREAMS = [
  'Call',
  'AbortController',
  'AbortSignal',
  'ServerDuplexStreamImpl',
  'ServerWritableStreamImpl',
  'BaseServerInterceptingCall',
  'ServerHttp2Stream',
  'ServerHttp2Session',
  'Socket',
  'InboundFrames',
  'Streamed',
  'Answer',
  'Pump',
  'Watch',
  'OneTopicReader',
  'SetReader',
  'FollowedSet',
  'Chat',
  'EventChecker',
  'QueueWriter',
  'Outbox',
];
/** The classes of the objects that hold the newest events in memory. */
const OF_THE_LOG = ['Object', 'Array', 'Buffer', 'ArrayBuffer', 'Uint32Array'];

const BLOCKED: readonly SetName[] = ['Watch blocked', 'UploadEvents blocked', 'Chat blocked'];

interface Served extends Observed {
  readonly dataDirectory: string;
  readonly heapDirectory: string;
  /** How many sockets it had before the first client connected. */
  readonly ownSockets: number;
}

type Start = (settings: Record<string, string>, atEnd: AtEnd) => Promise<Observed>;

const startWithPipe: Start = async (settings, atEnd) => {
  const service = await ServiceProcess.start(settings, atEnd);
  return { service, log: new ServiceLog(service) };
};

/**
 * Starts a service that writes its log to a file, for a test that needs its last lines. At its end, a service waits only for a
 * second for the reader of its output, and these tests' process may stand still for longer.
 */
const startWithLogFile: Start = async (settings, atEnd) => {
  const path = join(temporaryDirectory(atEnd), 'log');
  const file = openSync(path, 'a+');
  atEnd(() => closeSync(file));
  const service = ServiceProcess.shell('exec bin/feed-server >>"$LOG"', { ...settings, LOG: path });
  const parts: string[] = [];
  const written = {
    get output() {
      // An open file is read on from where the last read has ended.
      parts.push(readFileSync(file, 'utf8'));
      return parts;
    },
  };
  await service.ready(() => written.output.join(''));
  return { service, log: new ServiceLog(written) };
};

async function serve(
  atEnd: AtEnd,
  settings: Record<string, string> = {},
  start = startWithPipe,
): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
  atEnd(() => rmSync(directory, { recursive: true, force: true }));
  const dataDirectory = join(directory, 'data');
  const observed = await start(
    {
      NODE_OPTIONS: `--heapsnapshot-signal=SIGUSR2 --diagnostic-dir=${directory}`,
      FEED_DATA_DIR: dataDirectory,
      FEED_LOG_LEVEL: 'debug',
      FEED_LOG_FORMAT: 'json',
      // A small window, because bytes that a client sends and no handler takes stay in the service's memory.
      FEED_STREAM_WINDOW: '64KiB',
      // All blocked chats of a connection leave a whole stream window untaken. By default, the 129th chat would fill what the
      // connection may send ahead: the first messages of later chats would never arrive, and the connection would be ended.
      FEED_SESSION_WINDOW: '256MiB',
      FEED_RECEIVE_BYTES: '1GiB',
      FEED_KEEPALIVE_TIME: `${KEEPALIVE.time}s`,
      FEED_KEEPALIVE_TIMEOUT: `${KEEPALIVE.timeout}s`,
      FEED_RETENTION_TOPIC_MAX_BYTES: '1MiB',
      ...settings,
    },
    atEnd,
  );
  const served = {
    ...observed,
    dataDirectory,
    heapDirectory: directory,
    ownSockets: socketsOf(observed.service.process.pid!).size,
  };
  await fill(served, 1);
  // A stream may get the port of this upload, and would seem to have ended if the upload's line in the log came later.
  await eventually(() => expect(served.log.ends).toHaveLength(1));
  return served;
}

/** Stores events of some MiB in the topic of the blocked watches. */
async function fill({ service }: Observed, mebibytes: number): Promise<void> {
  const client = connect(service.grpcAddress);
  const events = Array.from({ length: 64 }, () => ({
    topic: FULL_TOPIC,
    body: 'x'.repeat(2 ** 14),
  }));
  for (let i = 0; i < mebibytes; i++) {
    expect((await upload(client, events)).error).toBeUndefined();
  }
  client.close();
}

/** Sends more messages to the room of the blocked chats than may wait for a member. */
async function flood({ service }: Observed): Promise<void> {
  const raw = await RawClient.connect(service.grpcAddress);
  const call = raw.open('Chat').drop();
  for (let i = 0; i < 400; i++) call.send(encodeChat({ room: BLOCKED_ROOM, text: String(i) }));
  call.stream.end();
  expect((await call.trailers)?.['grpc-status']).toBe('0');
  raw.close();
}

const every = (how: string, others: Partial<Record<SetName, string>> = {}) => ({
  ...(Object.fromEntries(SETS.map((name) => [name, how])) as Record<SetName, string>),
  ...others,
});

const ofBlocked = (how: string) =>
  Object.fromEntries(BLOCKED.map((name) => [name, how])) as Partial<Record<SetName, string>>;

/** How sets end that are cancelled: a blocked upload has ended before, with its result. */
const cancelled = every('CANCELLED', { 'UploadEvents blocked': 'OK' });

describe('streams of every kind, in every state', { timeout: TIMEOUT }, () => {
  const endings: (() => void | Promise<void>)[] = [];
  let served: Served;
  let before: { heap: Map<string, number>; places: number };

  /** How long (milliseconds) it took to open the streams when that took longest. */
  let longestOpening = 0;
  const open = async (options: OpenSetsOptions, others?: { streams: number }) => {
    const start = Date.now();
    const sets = await OpenSets.open(served, options, others);
    longestOpening = Math.max(longestOpening, Date.now() - start);
    return sets;
  };

  const heapNow = () => heap(served.service.process.pid!, served.heapDirectory);

  /**
   * Waits until no client is connected and the log is not read; returns the service's places in LMDB's reader list.
   *
   * @param wanted waits until there are exactly this many places
   */
  const quiet = async (wanted?: number): Promise<number> => {
    const pid = served.service.process.pid!;
    await eventually(() => expect(clientsOf(served)).toEqual([]), AT_ONCE);
    await eventually(() => expect(socketsOf(pid).size, 'sockets').toBe(served.ownSockets), AT_ONCE);
    // Retention reads once a second, and lmdb-js releases its snapshot by a timer (read.js, resetReadTxn).
    return eventually(async () => {
      const { places, reading } = await readers(pid, served.dataDirectory);
      expect(reading, 'places in the reader list that hold a snapshot').toBe(0);
      expect(places, 'places in the reader list').toBe(wanted ?? places);
      return places;
    }, AT_ONCE);
  };

  /** Checks that nothing is open, and that the service looks from outside as it did before the streams. */
  const nothingIsLeft = async (ends: Partial<Record<SetName, string>>, ...all: OpenSets[]) => {
    await counted(served, NOTHING, AT_ONCE);
    await quiet(before.places);
    for (const sets of all) await sets.ended(ends, AT_ONCE); // each stream has ended once
  };

  beforeAll(async () => {
    served = await serve((end) => endings.push(end));
    before = { places: await quiet(), heap: await heapNow() };
    // If these could not be seen, the checks below would prove nothing.
    expect(before.places).toBeGreaterThan(0);
    expect(served.ownSockets).toBeGreaterThan(0);
  });
  afterAll(async () => {
    for (const end of endings.toReversed()) await end();
  });

  test('the objects of open streams are found in the heap', async () => {
    const sets = await open({ streams: STREAMS, connections: 1 });
    const whileOpen = await heapNow();
    const more = (name: string): number =>
      (whileOpen.get(name) ?? 0) - (before.heap.get(name) ?? 0);
    expect(OF_STREAMS.filter((name) => more(name) <= 0)).toEqual([]);
    await sets.kill();
    await nothingIsLeft(every('CANCELLED'), sets);
  });

  describe.each(CONNECTIONS)('over %i connections a set', (connections) => {
    const options = { streams: STREAMS, connections };

    test('streams end at once when their client cancels', async () => {
      const sets = await open(options);
      await sets.blockUploads();
      const start = Date.now();
      await sets.actOnAll('cancel');
      await sets.ended(cancelled, AT_ONCE);
      sets.report('cancel', start);
      await counted(served, NOTHING, AT_ONCE);
      await sets.connected(AT_ONCE); // the client keeps its connections
      await sets.kill();
      await nothingIsLeft(cancelled, sets);
    });

    test('streams end when their deadline passes, and are reset 2 s later where nobody reads', async () => {
      // The streams must be open and the uploads blocked before any deadline passes.
      const deadline = Math.max(LEAST_DEADLINE, 3 * longestOpening + BLOCKED_BEFORE_DEADLINE);
      const first = Date.now() + deadline;
      const sets = await open({ ...options, deadline });
      await sleep(first - BLOCKED_BEFORE_DEADLINE - Date.now());
      await sets.blockUploads();
      const expected = every('DEADLINE_EXCEEDED', { 'UploadEvents blocked': 'OK' });
      // A machine that stands still may half-close uploads after their deadline.
      const late = 'UploadEvents blocked';
      const orElse = { [late]: 'DEADLINE_EXCEEDED' };
      await sets.ended(expected, deadline + AT_ONCE, orElse);
      sets.report('deadline', first);
      for (const name of SETS.filter((set) => set !== 'UploadEvents blocked')) {
        for (const { time } of sets.endsOf(name))
          expect(Date.parse(time), name).toBeGreaterThanOrEqual(first - DEADLINE_MARGIN);
      }
      await counted(served, NOTHING, AT_ONCE);
      await sets.told(every('status 4', ofBlocked('reset 11')), LINGER + AT_ONCE, {
        [late]: 'status 4',
      });
      // They ended by the deadline, and not by the reset that follows it.
      for (const name of BLOCKED)
        expect(Math.min(...(await sets.untilReset(name))), name).toBeGreaterThan(LINGER / 2);
      await sets.kill();
      await nothingIsLeft(expected);
      await sets.ended(expected, 0, orElse); // each stream has ended once
    });

    test('streams end at once when their client is killed', async () => {
      const sets = await open(options);
      await sets.blockUploads();
      const start = Date.now();
      await sets.kill();
      await sets.ended(cancelled, AT_ONCE);
      sets.report('SIGKILL', start);
      await nothingIsLeft(cancelled, sets);
    });

    test('streams that the server ends are over at once, and are reset 2 s later where nobody reads', async () => {
      const sets = await open(options);
      await fill(served, OVERTAKEN);
      const start = Date.now();
      await sets.act('UploadEvents idle', 'half-close');
      await sets.act('UploadEvents in full flow', 'send what is not a message');
      await sets.act('UploadEvents blocked', 'half-close');
      await sets.act('Chat idle', 'half-close');
      await sets.act('Chat in full flow', 'send what is not a message');
      await flood(served);
      await sets.act('Watch blocked', 'read');
      const ends = {
        'Watch blocked': 'OUT_OF_RANGE CURSOR_EXPIRED',
        'UploadEvents idle': 'OK',
        'UploadEvents in full flow': 'INVALID_ARGUMENT EVENT_INVALID',
        'UploadEvents blocked': 'OK',
        'Chat idle': 'OK',
        'Chat in full flow': 'INVALID_ARGUMENT MESSAGE_INVALID',
        'Chat blocked': 'RESOURCE_EXHAUSTED TOO_SLOW',
      };
      await sets.ended(ends, AT_ONCE);
      sets.report('server return', start);
      // The server has no reason to end the idle watches and those in full flow.
      const left = 2 * STREAMS;
      await counted(served, { ...NOTHING, watches: left, subscriptions: left }, AT_ONCE);
      const told = {
        'Watch blocked': 'status 11',
        'UploadEvents idle': 'status 0',
        'UploadEvents in full flow': 'status 3',
        'UploadEvents blocked': 'reset 11',
        'Chat idle': 'status 0',
        'Chat in full flow': 'status 3',
        'Chat blocked': 'reset 11',
      };
      await sets.told(told, LINGER + AT_ONCE);
      await sets.kill();
      await nothingIsLeft(
        { ...ends, 'Watch idle': 'CANCELLED', 'Watch in full flow': 'CANCELLED' },
        sets,
      );
    });
  });

  test(
    `streams end within ${CUT} s when the network is cut without a packet`,
    { timeout: 2 * TIMEOUT },
    async () => {
      const [one, many] = await Promise.all(
        CONNECTIONS.map(() => Link.to(served.service.grpcAddress)),
      );
      onTestFinished(() => [one, many].forEach((link) => link.close()));
      const [few] = CONNECTIONS;
      const all = [await open({ streams: STREAMS, connections: few, link: one })];
      all.push(
        await open(
          { streams: STREAMS, connections: CONNECTIONS[1], link: many },
          { streams: STREAMS },
        ),
      );
      await Promise.all(all.map((sets) => sets.blockUploads()));
      const start = Date.now();
      for (const link of [one, many]) link.cut();
      // Members that receive nothing any more may become TOO_SLOW, and retention may overtake watches.
      const orElse = {
        'Chat in full flow': 'RESOURCE_EXHAUSTED TOO_SLOW',
        'Watch in full flow': 'OUT_OF_RANGE CURSOR_EXPIRED',
      };
      await Promise.all(all.map((sets) => sets.ended(cancelled, CUT * 1_000 + AT_ONCE, orElse)));
      for (const sets of all) sets.report('cut', start);
      await nothingIsLeft(cancelled);
      for (const sets of all) await sets.ended(cancelled, 0, orElse); // each stream has ended once
    },
  );

  test('streams that have ended leave no objects in the heap', async () => {
    // The last streams may still wait for their client to read, at most for LINGER.
    await eventually(async () => {
      const after = await heapNow();
      const more = (name: string): number => (after.get(name) ?? 0) - (before.heap.get(name) ?? 0);
      expect(OF_STREAMS.filter((name) => more(name) > 0)).toEqual([]);
      // Timers are counted here only, because a stream has none while it is open. One is of the notice of overtaken watches.
      expect(more('Timeout')).toBeLessThanOrEqual(1);
      const others = [...after.keys()].filter((name) => !OF_THE_LOG.includes(name));
      expect(others.filter((name) => more(name) >= STREAMS)).toEqual([]);
    }, LINGER + AT_ONCE);
  });
});

test.each(CONNECTIONS)(
  'a drain ends streams of every kind in every state in time, over %i connections a set',
  { timeout: TIMEOUT },
  async (connections) => {
    const settings = { FEED_DRAIN_TIMEOUT: `${DRAIN_TIMEOUT}ms` };
    const served = await serve(onTestFinished, settings, startWithLogFile);
    const sets = await OpenSets.open(served, { streams: STREAMS, connections });
    await sets.blockUploads();
    const start = Date.now();
    const exit = await served.service.kill('SIGTERM');
    const took = Date.now() - start;
    // Nine seconds after the drain timeout, it would have ended by SIGKILL (src/process/run.ts).
    expect(exit).toEqual({ code: 0, signal: null });
    sets.report(`drain (exit after ${took} ms)`, start);
    await sets.ended(every('UNAVAILABLE DRAINING', { 'UploadEvents blocked': 'OK' }), 0);
    expect(served.log.open).toEqual(NOTHING);
    await sets.told(
      every('status 14', { ...ofBlocked('connection lost'), 'UploadEvents blocked': 'reset 11' }),
      AT_ONCE,
    );
  },
);
