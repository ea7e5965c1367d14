import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, onTestFinished, test, type TestContext } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, type FeedClient, take, upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory, type User } from '../support/service.js';
import { skip, useShim, works } from '../support/shim.js';
import { eventually } from '../support/wait.js';
import { heldDisk } from './held-disk.js';

/** Two users without root's rights, in one group. */
const SOMEBODY: User = { uid: 65_534, gid: 65_533 };
const SOMEBODY_ELSE: User = { uid: 65_532, gid: 65_533 };

const slowSync = useShim(new URL('../repository/slow-sync.c', import.meta.url));

const event = (id: string): Partial<Event> => ({ id, topic: 'orders' });

/** The files of a data directory. */
const filesOf = (directory: string) => ({
  directory,
  lock: join(directory, 'lock'),
  log: join(directory, 'log'),
  data: join(directory, 'log', 'data.mdb'),
  readers: join(directory, 'log', 'lock.mdb'),
});
type Files = ReturnType<typeof filesOf>;

/** Skips a test where this process can't start the service as another user. */
function needsOtherUsers(context: TestContext): void {
  if (process.getuid!() !== 0) skip(context, 'only root may start a process as another user');
  const cwd = fileURLToPath(new URL('../..', import.meta.url));
  const { status } = spawnSync(process.execPath, ['--version'], { cwd, ...SOMEBODY });
  if (status !== 0) skip(context, `another user may not enter ${cwd}`);
}

/** A directory with a log of one event, made by the first test that needs it. */
let template: string | undefined;

/** Makes a data directory with a log of one event, whose process has ended. */
async function stoppedLog(): Promise<Files> {
  template ??= await makeTemplate();
  const files = filesOf(join(temporaryDirectory(), 'data'));
  cpSync(template, files.directory, { recursive: true });
  return files;
}

async function makeTemplate(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
  const service = await ServiceProcess.start({ FEED_DATA_DIR: directory });
  expect((await upload(service.connect(), [event('stored')])).error).toBeUndefined();
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  return directory;
}

afterAll(() => template !== undefined && rmSync(template, { recursive: true }));

function give({ directory, log }: Files, { uid, gid }: User): void {
  // Only its owner may enter a directory of temporaryDirectory().
  chmodSync(join(directory, '..'), 0o755);
  for (const path of [directory, log]) {
    chownSync(path, uid, gid);
    for (const name of readdirSync(path)) chownSync(join(path, name), uid, gid);
  }
}

const readFromStart = async (client: FeedClient, count: number): Promise<string[]> =>
  (await take(client, { topic: 'orders', position: 1 }, count)).map(({ id }) => id);

describe('a start is refused with the path, the user and what to do, never ended by a signal', () => {
  const foreign: { what: string; path: keyof Files; make: (files: Files) => void }[] = [
    {
      what: 'lock.mdb of another user, read-only',
      path: 'readers',
      make: ({ readers }) => own(readers, 0o444),
    },
    {
      what: 'lock.mdb that may not be read',
      path: 'readers',
      make: ({ readers }) => own(readers, 0),
    },
    {
      what: 'data.mdb of another user, read-only',
      path: 'data',
      make: ({ data }) => own(data, 0o644),
    },
    { what: 'data.mdb that may not be read', path: 'data', make: ({ data }) => own(data, 0o600) },
    { what: 'log that may not be entered', path: 'log', make: ({ log }) => own(log, 0o700) },
    { what: 'lock of another user', path: 'lock', make: ({ lock }) => own(lock, 0o644) },
    {
      what: 'a directory that may not be entered',
      path: 'directory',
      make: ({ directory }) => own(directory, 0o700),
    },
    {
      what: 'a directory without a log that may not be written',
      path: 'directory',
      make: ({ directory, log, lock }) => {
        rmSync(log, { recursive: true });
        rmSync(lock);
        own(directory, 0o755);
      },
    },
  ];

  function own(path: string, mode: number): void {
    chownSync(path, 0, 0);
    chmodSync(path, mode);
  }

  test.for(foreign)('$what', async ({ path, make }, context) => {
    needsOtherUsers(context);
    const files = await stoppedLog();
    give(files, SOMEBODY);
    make(files);
    const names = (): string[] => (existsSync(files.log) ? readdirSync(files.log) : []);
    const before = names();
    const service = ServiceProcess.spawn({ FEED_DATA_DIR: files.directory }, undefined, SOMEBODY);
    const ended = await service.exited;
    const output = service.output.join('');
    expect({ ...ended, output }).toMatchObject({ code: 1, signal: null });
    expect(output).toContain(files[path]);
    expect(output).toContain(`uid ${SOMEBODY.uid}`);
    expect(output).toContain('chown');
    // Also the note that says which file was open last: without it, the next start reads all of the log.
    expect(names()).toEqual(before);
  });

  const elsewhere = (files: Files) => join(files.directory, '..', 'elsewhere');
  const misplaced: { what: string; says: RegExp; make: (files: Files) => void }[] = [
    {
      what: 'data.mdb is a directory',
      says: /data\.mdb is a directory/,
      make: ({ data }) => (rmSync(data), mkdirSync(data)),
    },
    {
      what: 'lock.mdb is a directory',
      says: /lock\.mdb is a directory/,
      make: ({ readers }) => (rmSync(readers), mkdirSync(readers)),
    },
    {
      what: 'log is a file',
      says: /log is of uid \d+, gid \d+ and mode \d+, and no directory: this process, of uid/,
      make: ({ log }) => (rmSync(log, { recursive: true }), writeFileSync(log, '')),
    },
    {
      what: 'log is a symbolic link',
      says: /log is a symbolic link/,
      make: (files) => (
        renameSync(files.log, elsewhere(files)),
        symlinkSync(elsewhere(files), files.log)
      ),
    },
    {
      what: 'data.mdb is a symbolic link',
      says: /data\.mdb is a symbolic link/,
      make: (files) => (
        renameSync(files.data, elsewhere(files)),
        symlinkSync(elsewhere(files), files.data)
      ),
    },
    {
      what: 'data.mdb is a link that leads nowhere',
      says: /data\.mdb is a symbolic link/,
      make: (files) => (rmSync(files.data), symlinkSync(elsewhere(files), files.data)),
    },
    {
      what: 'data.mdb was renamed within log',
      says: /log has no data\.mdb, but other files: data\.mdb-aside/,
      make: ({ data }) => renameSync(data, `${data}-aside`),
    },
    {
      what: 'data.mdb is empty',
      says: /data\.mdb is damaged \(it has only 0 bytes\)/,
      make: ({ data }) => writeFileSync(data, ''),
    },
  ];

  test.for(misplaced)('$what', async ({ says, make }) => {
    const files = await stoppedLog();
    make(files);
    const service = ServiceProcess.spawn({ FEED_DATA_DIR: files.directory });
    const ended = await service.exited;
    expect({ ...ended, output: service.output.join('') }).toEqual({
      code: 1,
      signal: null,
      output: expect.stringMatching(says) as string,
    });
  });

  test('a directory that may not be made: the closest one above it that exists is named', async (context) => {
    needsOtherUsers(context);
    const above = temporaryDirectory();
    chmodSync(above, 0o755);
    const settings = { FEED_DATA_DIR: join(above, 'missing', 'data') };
    const service = ServiceProcess.spawn(settings, undefined, SOMEBODY);
    const ended = await service.exited;
    const output = service.output.join('');
    expect({ ...ended, output }).toMatchObject({ code: 1, signal: null });
    expect(output).toMatch(
      new RegExp(`${above} is of uid 0, gid \\d+ and mode 0755, and this process`),
    );
  });

  /** Starts a service with a data directory that it can't use, and returns what it says. */
  async function refusalOf(directory: string): Promise<string> {
    const service = ServiceProcess.spawn({ FEED_DATA_DIR: directory });
    const ended = await service.exited;
    const output = service.output.join('');
    expect({ ...ended, output }).toMatchObject({ code: 1, signal: null });
    expect(output).toContain(`can't use the data directory ${directory} (FEED_DATA_DIR): `);
    return output;
  }
  const owned = (path: string, mode: string): string =>
    `${path} is of uid ${process.geteuid!()}, gid ${process.getegid!()} and mode ${mode}`;
  const self = `this process, of uid ${process.geteuid!()} and groups `;

  test('a file system that makes no directories: the closest one that exists is named', async (context) => {
    if (!existsSync('/proc/self')) context.skip('there is no /proc here');
    const output = await refusalOf('/proc/feed/data');
    expect(output).toContain('/proc is of uid 0, gid 0 and mode 0555, and its file system lets');
    expect(output).toContain(self);
    expect(output).toContain('set FEED_DATA_DIR to a path on another one');
  });

  test.each(['', '/data', '/data/deeper'])(
    'a file in the place of a directory, in the path FILE%s',
    async (below) => {
      const file = join(temporaryDirectory(), 'file');
      writeFileSync(file, 'mine', { mode: 0o600 });
      chmodSync(file, 0o600);
      const output = await refusalOf(file + below);
      expect(output).toContain(`${owned(file, '0600')}, and no directory: ${self}`);
      expect(output).toContain('Move it away, or set FEED_DATA_DIR to another path');
      expect(readFileSync(file, 'utf8')).toBe('mine');
    },
  );

  test('a symbolic link that leads nowhere, in the place of the directory', async () => {
    const link = join(temporaryDirectory(), 'link');
    symlinkSync(join(link, '..', 'nowhere'), link);
    expect(await refusalOf(link)).toContain(`${link} is a symbolic link that leads nowhere`);
  });

  test('a directory above that may not be read, so that its names can not be flushed', async (context) => {
    needsOtherUsers(context);
    const above = join(temporaryDirectory(), 'above');
    chmodSync(join(above, '..'), 0o755);
    mkdirSync(above);
    chownSync(above, SOMEBODY.uid, SOMEBODY.gid);
    chmodSync(above, 0o311);
    const settings = { FEED_DATA_DIR: join(above, 'data') };
    const service = ServiceProcess.spawn(settings, undefined, SOMEBODY);
    expect(await service.exited).toEqual({ code: 1, signal: null });
    expect(service.output.join('')).toContain(
      `can't use ${above}: it is of uid ${SOMEBODY.uid}, gid ${SOMEBODY.gid} and mode 0311`,
    );
  });

  test('a file system that is mounted read-only', async (context) => {
    const { directory } = await stoppedLog();
    if (!works('mount', '--bind', directory, directory)) skip(context, 'this user may not mount');
    onTestFinished(() => void execFileSync('umount', ['-l', directory]));
    execFileSync('mount', ['-o', 'remount,bind,ro', directory]);
    const service = ServiceProcess.spawn({ FEED_DATA_DIR: directory });
    const ended = await service.exited;
    const output = service.output.join('');
    expect({ ...ended, output }).toMatchObject({ code: 1, signal: null });
    expect(output).toMatch(/read-only.*mount it writable/);
  });
});

test('a directory that a group may write: any user of the group can go on with the log', async (context) => {
  needsOtherUsers(context);
  const directory = temporaryDirectory();
  chownSync(directory, 0, SOMEBODY.gid);
  chmodSync(directory, 0o2775);
  const settings = { FEED_DATA_DIR: directory };
  const ids: string[] = [];
  for (const user of [SOMEBODY, SOMEBODY_ELSE, SOMEBODY]) {
    const service = ServiceProcess.spawn(settings, undefined, user);
    await service.ready();
    ids.push(`of ${user.uid}, ${ids.length}`);
    const client = service.connect();
    expect((await upload(client, [event(ids.at(-1)!)])).error).toBeUndefined();
    expect(await readFromStart(client, ids.length)).toEqual(ids);
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  }
});

test("files that an earlier version made for their owner only are opened to the group by the owner's next start", async (context) => {
  needsOtherUsers(context);
  const files = await stoppedLog();
  give(files, SOMEBODY);
  chmodSync(files.directory, 0o2775);
  chmodSync(files.log, 0o755);
  for (const path of [files.lock, files.data, files.readers]) chmodSync(path, 0o644);
  const settings = { FEED_DATA_DIR: files.directory };
  const refused = ServiceProcess.spawn(settings, undefined, SOMEBODY_ELSE);
  expect(await refused.exited).toEqual({ code: 1, signal: null });
  for (const user of [SOMEBODY, SOMEBODY_ELSE]) {
    const service = ServiceProcess.spawn(settings, undefined, user);
    await service.ready();
    expect(await readFromStart(service.connect(), 1)).toEqual(['stored']);
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  }
});

test('files in a directory that no group may write can be written by their owner only', async () => {
  const files = filesOf(temporaryDirectory());
  const service = await ServiceProcess.start({ FEED_DATA_DIR: files.directory });
  await service.kill('SIGTERM');
  for (const path of [files.lock, files.log, files.data, files.readers])
    expect(statSync(path).mode & 0o022).toBe(0);
});

describe('a log whose file is taken away while it runs', () => {
  const aside = (path: string) => `${path}-aside`;
  const moves: { what: string; take: (files: Files) => void; putBack?: (files: Files) => void }[] =
    [
      { what: 'data.mdb removed', take: ({ data }) => rmSync(data) },
      { what: 'log/ removed', take: ({ log }) => rmSync(log, { recursive: true }) },
      {
        what: 'the data directory removed',
        take: ({ directory }) => rmSync(directory, { recursive: true }),
      },
      {
        what: 'data.mdb renamed',
        take: ({ data }) => renameSync(data, aside(data)),
        putBack: ({ data }) => renameSync(aside(data), data),
      },
      {
        what: 'log/ renamed, and a new one in its place',
        take: ({ log }) => {
          renameSync(log, aside(log));
          mkdirSync(log);
          copyFileSync(join(aside(log), 'data.mdb'), join(log, 'data.mdb'));
        },
        putBack: ({ log }) => {
          rmSync(log, { recursive: true });
          renameSync(aside(log), log);
        },
      },
      {
        what: 'log/ replaced by a symbolic link to itself',
        take: ({ log }) => {
          renameSync(log, aside(log));
          symlinkSync(log, log);
        },
        putBack: ({ log }) => {
          rmSync(log);
          renameSync(aside(log), log);
        },
      },
      {
        what: 'the data directory renamed',
        take: ({ directory }) => renameSync(directory, aside(directory)),
        putBack: ({ directory }) => renameSync(aside(directory), directory),
      },
      {
        what: "data.mdb replaced by another log's",
        take: ({ data }) => {
          copyFileSync(data, aside(data));
          renameSync(aside(data), data);
        },
      },
    ];

  const health = async (service: ServiceProcess, path: string): Promise<number> =>
    (await fetch(`http://${service.httpAddress}/${path}`)).status;

  test.for(moves)(
    '$what: uploads are refused with the reason, it is logged once, reads and probes go on, and the exit code at the end is 1',
    async ({ take: takeAway, putBack }) => {
      const files = await stoppedLog();
      const service = await ServiceProcess.start({ FEED_DATA_DIR: files.directory });
      const client = service.connect();
      takeAway(files);
      for (let i = 0; i < 3; i++) {
        const { error } = await upload(client, [event(`refused ${i}`)]);
        expect(error?.details).toContain(`${files.data} is no longer the log's file`);
        expect(errorInfo(error!.metadata)).toMatchObject({
          reason: 'INSERT_FAILED',
          metadata: { received: '0' },
        });
      }
      expect(await readFromStart(client, 1)).toEqual(['stored']);
      expect([await health(service, 'healthz'), await health(service, 'readyz')]).toEqual([
        200, 200,
      ]);
      // These lines are logged in addition to the line of each call.
      const line = /"msg":"\/[^"]* is no longer the log's file/g;
      await eventually(() => expect(service.output.join('').match(line)).toHaveLength(1));
      if (!putBack) {
        expect(await service.kill('SIGTERM')).toEqual({ code: 1, signal: null });
        return;
      }
      putBack(files);
      expect((await upload(client, [event('after')])).error).toBeUndefined();
      expect(await readFromStart(client, 2)).toEqual(['stored', 'after']);
      expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
      const again = await ServiceProcess.start({ FEED_DATA_DIR: files.directory });
      expect(await readFromStart(again.connect(), 2)).toEqual(['stored', 'after']);
    },
  );

  test('the file renamed while a commit waits for the disk: no commit is acknowledged until a restart', async (context) => {
    const disk = heldDisk(slowSync(context));
    const files = filesOf(disk.settings.FEED_DATA_DIR);
    const service = await ServiceProcess.start(disk.settings);
    const client = service.connect();
    disk.hold();
    const uploading = upload(client, [event('while')]);
    await disk.waits();
    renameSync(files.data, aside(files.data));
    disk.release();
    expect((await uploading).error?.details).toContain(`${files.data} is no longer the log's file`);
    renameSync(aside(files.data), files.data);
    expect((await upload(client, [event('then')])).error?.details).toContain(
      'writing resumes only after a restart',
    );
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    const again = (await ServiceProcess.start(disk.settings)).connect();
    expect((await upload(again, [event('after')])).error).toBeUndefined();
    // As after a crash, an event that was being stored may be there. Here it is.
    expect(await readFromStart(again, 2)).toEqual(['while', 'after']);
  });

  test('a second process is refused though the lock was removed, or the log has another name', async () => {
    const files = await stoppedLog();
    const service = await ServiceProcess.start({ FEED_DATA_DIR: files.directory });
    const link = filesOf(join(temporaryDirectory(), 'linked'));
    mkdirSync(link.log, { recursive: true });
    linkSync(files.data, link.data);
    rmSync(files.lock);
    for (const { directory } of [files, link]) {
      const second = ServiceProcess.spawn({ FEED_DATA_DIR: directory });
      const ended = await second.exited;
      expect({ ...ended, output: second.output.join('') }).toEqual({
        code: 1,
        signal: null,
        output: expect.stringContaining('another process uses') as string,
      });
    }
    expect((await upload(service.connect(), [event('still')])).error).toBeUndefined();
  });
});
