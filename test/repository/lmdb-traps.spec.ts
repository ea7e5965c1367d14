import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it, type TestContext } from 'vitest';
import { open as openLmdb } from 'lmdb';
import { checkedMeta } from '../../src/repository/lmdb/log-check.js';
import type { EventLog } from '../../src/repository/event-log.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { LogFile } from '../../src/repository/lmdb/log-file.js';
import { TreeCheck } from '../../src/repository/lmdb/tree-check.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { parseCursor } from '../../src/wire/cursor.js';
import { ids, readAll } from '../contract/reading.js';
import { temporaryDirectory } from '../contract/temporary.js';
import { Child } from '../support/child.js';
import { holesOf } from '../support/lmdb-holes.js';
import { skip, useShim, works } from '../support/shim.js';
import { until } from '../support/wait.js';
import { checked } from '../wire/events.js';
import { LogProcess, type LogProcessOptions } from './log-process.js';
import type { Outcome } from './log-process-main.js';
import type { Methods } from './store-process-main.js';

const MIB = 2 ** 20;

const endings: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).toReversed()) await end();
});

function newDirectory(): string {
  const { path, remove } = temporaryDirectory();
  endings.push(remove);
  return path;
}

function startProcess(options?: LogProcessOptions): LogProcess {
  const child = new LogProcess(options);
  endings.push(() => child.kill());
  return child;
}

const idsIn = (outcomes: readonly Outcome[]) =>
  outcomes.flatMap((outcome, i) => ('stored' in outcome ? [String(i)] : []));

describe('trap: a record is readable before it is durable', () => {
  const slowSync = useShim(new URL('slow-sync.c', import.meta.url));

  function startPreloaded(context: TestContext, env: NodeJS.ProcessEnv): LogProcess {
    return startProcess({ env: { LD_PRELOAD: slowSync(context), ...env } });
  }

  it('nothing is seen, and head does not move, until the flush is over', async (context) => {
    const directory = newDirectory();
    const before = await openLmdbLog({ directory, fsync: true });
    await before.openWriter().append(checked({ topic: 't', id: 'before' }));
    await before.close();

    // Opened again, so that its reads go to the file.
    const hold = join(newDirectory(), 'hold');
    const log = startPreloaded(context, { SHIM_HOLD: hold });
    await log.call('open', directory, true);
    const { head } = await log.call('look', 't');

    writeFileSync(hold, '');
    const settled: string[] = [];
    const appends = ['a', 'b', 'a'].map(async (writer, i) => {
      await log.call('append', writer, 't', [`${writer}${i}`]);
      settled.push(`${writer}${i}`);
    });
    await until(() => existsSync(`${hold}.reached`), 'a flush that waits');
    for (let i = 0; i < 50; i++) {
      const seen = await log.call('look', 't');
      expect([seen.head, ...ids(seen.events)]).toEqual([head, 'before']);
      expect(settled).toEqual([]);
      await sleep(2);
    }
    // Nor is it in the file for those who look there: a copy, or the process after a crash.
    const copy = join(newDirectory(), 'copy');
    cpSync(directory, copy, { recursive: true });
    const copied = await openLmdbLog({ directory: copy, fsync: true });
    expect(ids(await readAll(copied, 't'))).toEqual(['before']);
    await copied.close();

    rmSync(hold);
    await Promise.all(appends);
    expect(settled).toEqual(['a0', 'b1', 'a2']);
    expect(ids((await log.call('look', 't')).events)).toEqual(['before', 'a0', 'b1', 'a2']);
  });

  it('appends are done in the order of their positions, however long each flush takes', async (context) => {
    const log = startPreloaded(context, { SHIM_DELAY: '4000' });
    await log.call('open', newDirectory(), true);
    const positions: number[] = [];
    await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        await sleep(i);
        const outcome = await log.call('append', String(i % 3), 't', [String(i)]);
        positions.push('stored' in outcome ? parseCursor(outcome.stored)!.position : 0);
      }),
    );
    expect(positions).toEqual(Array.from({ length: 300 }, (_, i) => i + 1));
  });

  it('without fsync: what was stored is flushed when the log is closed', async (context) => {
    const syncs = join(newDirectory(), 'syncs');
    const log = startPreloaded(context, { SHIM_SYNCS: syncs });
    await log.call('open', newDirectory(), false);
    await log.call('append', 'a', 't', ['1']);
    const before = existsSync(syncs) ? statSync(syncs).size : 0;
    await log.call('close');
    expect(existsSync(syncs) ? statSync(syncs).size : 0).toBeGreaterThan(before);
  });
});

describe('trap: a full disk shows as EIO, and a second rejection ends the process', () => {
  /** A small disk of its own. */
  function mount(context: TestContext, mib: number): string {
    const directory = newDirectory();
    if (!works('mount', '-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', directory)) {
      skip(context, 'this user may not mount a tmpfs');
    }
    endings.push(() => void execFileSync('umount', ['-l', directory]));
    return directory;
  }

  const free = (directory: string) => {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  };

  it('a full disk refuses writes, keeps serving reads, and recovers without a restart', async (context) => {
    const disk = mount(context, 40);
    const directory = join(disk, 'data');
    const log = startProcess();
    await log.call('open', directory, true);

    const outcomes: Outcome[] = [];
    for (let i = 0; i < 40 && !outcomes.some((o) => 'refused' in o); i++) {
      outcomes.push(await log.call('append', 'a', 't', [String(i)], MIB));
    }
    expect(outcomes.at(-1)).toMatchObject({ refused: 'storage-full' });
    const stored = idsIn(outcomes);
    expect(stored.length).toBeGreaterThan(3);
    expect(ids((await log.call('look', 't')).events)).toEqual(stored);

    // To the last byte, as others on the same disk may do.
    writeFileSync(join(disk, 'others'), Buffer.alloc(Math.floor(free(disk) / 4096) * 4096));
    expect(free(disk)).toBe(0);
    expect(await log.call('append', 'b', 't', ['no'])).toMatchObject({ refused: 'storage-full' });
    expect(ids((await log.call('look', 't')).events)).toEqual(stored);

    // A full disk is no reason not to stop, nor not to start.
    await log.call('close');
    await log.call('open', directory, true);
    expect(ids((await log.call('look', 't')).events)).toEqual(stored);
    expect(await log.call('append', 'c', 't', ['no'])).toMatchObject({ refused: 'storage-full' });

    execFileSync('mount', ['-o', 'remount,size=80m', disk]);
    expect(await log.call('append', 'd', 't', ['yes'])).toHaveProperty('stored');
    await log.call('close');

    const again = await openLmdbLog({ directory, fsync: true });
    endings.push(() => again.close());
    expect(ids(await readAll(again, 't'))).toEqual([...stored, 'yes']);
  });

  it('on a full disk retention goes on, and makes room for writes', async (context) => {
    const disk = mount(context, 40);
    const directory = join(disk, 'data');
    const log = startProcess();
    await log.call('open', directory, true);
    const outcomes: Outcome[] = [];
    while (!outcomes.some((outcome) => 'refused' in outcome))
      outcomes.push(await log.call('append', 'a', 't', [String(outcomes.length)], MIB));
    await log.call('close');

    // As the message says: another limit. The writer that comes at once and again does not keep it from its work.
    await log.call('open', directory, true, { maxBytes: 4 * MIB });
    let again: Outcome;
    let tries = 0;
    do again = await log.call('append', String(tries++), 't', ['more'], MIB);
    while ('refused' in again && tries < 1_000);
    expect(again).toHaveProperty('stored');
  });

  const hasPrlimit = works('prlimit', '--version');
  const limitTo = (bytes: number) => ['prlimit', `--fsize=${bytes}:unlimited`];
  const unlimit = (log: LogProcess) =>
    void execFileSync('prlimit', [`--pid=${log.pid}`, '--fsize=unlimited:unlimited']);

  for (const fsync of [true, false]) {
    it(`a commit that fails inside LMDB refuses its appends, and nothing else (fsync: ${fsync})`, async (context) => {
      if (!hasPrlimit) skip(context, 'there is no prlimit');
      const directory = newDirectory();
      const log = startProcess({ under: limitTo(2 * MIB) });
      await log.call('open', directory, fsync);

      const outcomes: Outcome[] = [];
      for (let i = 0; i < 100 && !outcomes.some((o) => 'refused' in o); i++) {
        outcomes.push(await log.call('append', 'a', 't', [String(i)], 100_000));
      }
      expect(outcomes.at(-1)).toMatchObject({
        refused: 'refused',
        message: expect.stringMatching(/./),
      });
      const stored = idsIn(outcomes);
      expect(stored.length).toBeGreaterThan(3);

      const together = ['b', 'c', 'b'].map((writer) =>
        log.call('append', writer, 't', ['no'], 2 * MIB),
      );
      for (const outcome of await Promise.all(together)) expect(outcome).toHaveProperty('refused');
      for (let i = 0; i < 5; i++) {
        expect(ids((await log.call('look', 't')).events)).toEqual(stored);
        await sleep(5);
      }
      expect(log.alive).toBe(true);

      unlimit(log);
      expect(await log.call('append', 'a', 't', ['no'])).toHaveProperty('refused');
      expect(await log.call('append', 'd', 't', ['yes'], 100_000)).toHaveProperty('stored');
      const { events } = await log.call('look', 't');
      expect(ids(events)).toEqual([...stored, 'yes']);
      await log.call('close');

      const again = await openLmdbLog({ directory, fsync });
      endings.push(() => again.close());
      const reread = await readAll(again, 't');
      expect(reread.map(({ cursor }) => cursor)).toEqual(events.map(({ cursor }) => cursor));
      expect(ids(reread)).toEqual([...stored, 'yes']);
    });
  }

  it('a log that cannot be written when it is opened or closed is not held, and ends nothing', async (context) => {
    if (!hasPrlimit) skip(context, 'there is no prlimit');
    const outcomes = new Set<string>();
    // From what is too little for an empty log to what is enough for one, and for the look at the disk's room.
    for (const pages of [4, 8, 12, 256]) {
      const directory = newDirectory();
      const log = startProcess({ under: limitTo(pages * 4096) });
      const done = async (name: string, call: Promise<void>) => {
        const failed = await call.then(
          () => 'done',
          () => 'failed',
        );
        outcomes.add(`${name} ${failed}`);
        await sleep(10); // for a rejection that nobody handles to end the process
        expect(`with ${pages} pages, after ${name}: alive ${log.alive}`).toMatch(/alive true/);
        return failed === 'done';
      };
      if (await done('open', log.call('open', directory, true))) {
        await done('close', log.call('close'));
      }
      unlimit(log);
      await log.call('open', directory, true);
      expect(await log.call('append', 'a', 't', ['1'])).toHaveProperty('stored');
      await log.kill();
    }
    expect([...outcomes]).toEqual(expect.arrayContaining(['open failed', 'open done']));
  });
});

describe('trap: a good commit is given up where it uses up the free pages, in a thread that commits for the first time', () => {
  const PLANS = [
    { seed: 75, pages: 1_000, commits: 400 },
    { seed: 17, pages: 1_500, commits: 450 },
    { seed: 44, pages: 1_500, commits: 450 },
    { seed: 16, pages: 1_500, commits: 550 },
    { seed: 31, pages: 1_500, commits: 600 },
  ];

  it('it is made again, and stored once', async () => {
    let givenUp = 0;
    // In nearly every plan, lmdb gives up one commit. It does not where that commit's thread has made another one before.
    for (let round = 0; givenUp === 0 && round < 10; round++)
      for (const plan of PLANS) {
        const child = new Child<Methods>(new URL('store-process-main.ts', import.meta.url), {
          env: { UV_THREADPOOL_SIZE: '512' },
        });
        endings.push(() => child.kill());
        const found = await child.call('commit', newDirectory(), plan);
        await child.kill();
        expect(found).toMatchObject({ errors: [], isWhole: true });
        givenUp += found.givenUp;
      }
    // Once lmdb gives none up any more, Store.write() needs no second attempt.
    expect(givenUp).toBeGreaterThan(0);
  });
});

describe('trap: two processes open one directory without complaint', () => {
  const REFUSED = /another process uses the data directory/;

  it('a second process is refused, and a killed one leaves the directory free', async () => {
    const directory = newDirectory();
    const [first, second] = [startProcess(), startProcess()];
    await first.call('open', directory, true);
    await expect(second.call('open', directory, true)).rejects.toThrow(REFUSED);
    await expect(second.call('open', directory, false)).rejects.toThrow(directory);
    expect(await first.call('append', 'a', 't', ['1'])).toHaveProperty('stored');

    await first.kill();
    await second.call('open', directory, true);
    expect(ids((await second.call('look', 't')).events)).toEqual(['1']);
    await expect(openLmdbLog({ directory, fsync: true })).rejects.toThrow(REFUSED);
  });

  it('a second log in one process is refused, until the first is closed', async () => {
    const directory = newDirectory();
    const first = await openLmdbLog({ directory, fsync: true });
    await expect(openLmdbLog({ directory, fsync: true })).rejects.toThrow(REFUSED);
    // Another name for it makes no difference; nor does it that the second was refused and went away.
    await expect(
      openLmdbLog({
        directory: join(directory, '..', directory.split('/').at(-1)!),
        fsync: true,
      }),
    ).rejects.toThrow(REFUSED);
    await first.openWriter().append(checked({ topic: 't', id: '1' }));
    await first.close();
    const second = await openLmdbLog({ directory, fsync: true });
    expect(ids(await readAll(second, 't'))).toEqual(['1']);
    await second.close();
  });
});

describe('trap: a held read transaction grows the file', () => {
  const APPENDS = 400;

  /** The size of the file after appends, with something done between them. */
  async function grownTo(between: (log: EventLog) => unknown): Promise<number> {
    const directory = newDirectory();
    let log = await openLmdbLog({ directory, fsync: false });
    for (let i = 0; i < 20; i++)
      await log.openWriter().append(checked({ topic: 't' }, { topic: 'u' }));
    await log.close();

    // Nothing is in the tail now: reads from the start go to the file.
    log = await openLmdbLog({ directory, fsync: false });
    const writer = log.openWriter();
    for (let i = 0; i < APPENDS; i++) {
      const append = writer.append(checked({ topic: 't', body: 'x'.repeat(100) }));
      between(log);
      await append;
      between(log);
    }
    await log.close();
    return statSync(join(directory, 'log', 'data.mdb')).size;
  }

  it('reads between writes do not grow it', async () => {
    const alone = await grownTo(() => {});
    const withReads = await grownTo((log) => {
      for (const topic of ['t', 'u']) {
        for (const after of [0, 3, 20]) log.read(topic, after, 2_000);
        void log.positionBefore(topic, 0);
        void log.positionBeforeLast(topic, 5, log.head);
      }
    });
    expect(withReads).toBeLessThan(1.5 * alone + 64 * 1024);
  });

  it('what was read is a copy: nothing that happens later changes it, not even closing the log', async () => {
    const directory = newDirectory();
    let log = await openLmdbLog({ directory, fsync: false });
    const sizes = [0, 100, 1_000, 5_000, 40_000, 300_000, 3 * MIB];
    for (const size of sizes) {
      const body = 'x'.repeat(size);
      await log.openWriter().append(checked({ topic: 't', body }, { topic: 't', body: 'y' }));
    }
    await log.close();

    log = await openLmdbLog({ directory, fsync: false });
    const read = (after: number, maxBytes: number) => {
      const { bytes } = log.read('t', after, maxBytes)!;
      return { after, maxBytes, bytes, snapshot: Buffer.from(bytes) };
    };
    const kept: ReturnType<typeof read>[] = [];
    for (let after = 0; after < 2 * sizes.length; after++) {
      for (const maxBytes of [1, 10_000, 10 * MIB]) kept.push(read(after, maxBytes));
    }
    for (let i = 0; i < 100; i++) {
      await log.openWriter().append(checked({ topic: i % 2 ? 't' : 'u', body: 'z'.repeat(5_000) }));
    }
    for (const { after } of kept) read(after, 10 * MIB);
    const changed = () =>
      kept.filter(({ bytes, snapshot }) => !bytes.equals(snapshot)).map(({ after }) => after);
    expect(changed()).toEqual([]);

    // And the other way round: what a reader does to its bytes is not seen by others.
    for (const { bytes, after } of kept.splice(0, 6)) {
      bytes.fill(0);
      expect(read(after, 1).bytes.includes('x'.repeat(10)) || after < 2).toBe(true);
    }

    await log.close();
    const gone = readFileSync(join(directory, 'log', 'data.mdb'));
    mkdirSync(join(directory, 'elsewhere'));
    writeFileSync(join(directory, 'log', 'data.mdb'), Buffer.alloc(gone.length));
    expect(changed()).toEqual([]);
  });
});

describe('trap: a page is as large as the operating system has it', () => {
  it.each([4096, 16_384, 65_536])(
    'a log of pages of %d bytes is not taken for a damaged one, and half of it is',
    async (pageSize) => {
      const path = newDirectory();
      const root = openLmdb({ path, pageSize });
      const log = root.openDB<unknown, string>({ name: 'table' });
      await log.put('a', Buffer.alloc(4 * MIB));
      await log.put('b', 'so that both meta pages speak of it');
      await root.close();
      const data = join(path, 'data.mdb');
      const check = (): void => {
        const file = LogFile.open(data, path);
        try {
          const pages = new TreeCheck(
            file.descriptor,
            Number(file.stats.size),
            checkedMeta(file),
          ).run();
          expect([...pages].length).toBeGreaterThan(0);
        } finally {
          file.close();
        }
      };
      check();
      writeFileSync(data, readFileSync(data).subarray(0, 2 * MIB));
      expect(check).toThrow(/^it has \d+ bytes of \d+$/);
    },
  );
});

describe('trap: each commit goes through all holes of the file', () => {
  it('what is removed leaves few of them, whatever the sizes, and what comes in fits them', async () => {
    const directory = newDirectory();
    const log = await openLmdbLog({
      directory,
      fsync: false,
      dedup: { ids: 2_000, milliseconds: 60_000 },
      retention: { ...KEEP_ALL, maxBytes: 64 * MIB },
    });
    endings.push(() => log.close());
    const writer = log.openWriter();
    for (let commit = 0; commit < 2_000; commit++) {
      const events = Array.from({ length: 8 }, (_, topic) => ({
        topic: `t${topic}`,
        id: `${commit} ${topic}`,
        body: 'x'.repeat(2_000 + ((commit * 53 + topic * 2_917) % 28_001)),
      }));
      await writer.append(checked(...events));
    }
    const holes = holesOf(join(directory, 'log', 'data.mdb'));
    // Where runs lay in one piece each, there were more than a thousand, ever more, and as much free again.
    expect(holes.length).toBeLessThan(500);
    expect(holes.reduce((sum, pages) => sum + pages, 0) * 4096).toBeLessThan(4 * MIB);
  });
});
