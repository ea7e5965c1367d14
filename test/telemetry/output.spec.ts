import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, type TestContext } from 'vitest';
import { type DroppedLines, openOutput } from '../../src/telemetry/output.js';
import { NODE_ARGUMENTS } from '../support/child.js';
import { smallDisk } from '../support/disk.js';
import { until } from '../support/wait.js';

const LINE_LENGTH = 1000;
/** A number of lines that is more than may wait. */
const TOO_MANY = 20 * 1024;

/** A number of lines that takes a reader of 64 KiB per 20 ms more than a second. */
const LATE_LINES = 8 * 1024;

const line = (i: number): string => `${`${i} `.padEnd(LINE_LENGTH - 1, 'x')}\n`;

/** Opens an output to a file on a disk of 64 MiB, which is full. */
function fullOutput(context: TestContext) {
  const disk = smallDisk(context, 64);
  const path = join(disk.directory, 'log');
  const fd = openSync(path, 'a');
  /** Resolves when the writes before it have failed: ten appends fail after them, though on other threads. */
  const failing = async (): Promise<void> => {
    for (let i = 0; i < 10; i++)
      await expect(appendFile(path, 'x')).rejects.toMatchObject({ code: 'ENOSPC' });
  };
  onTestFinished(() => closeSync(fd));
  disk.fill();
  const reports: DroppedLines[] = [];
  const output = openOutput(fd, (lines) => {
    reports.push(lines);
    output.write('REPORT\n');
  });
  return { disk, output, reports, failing, lines: () => readFileSync(path, 'utf8').split('\n') };
}

const numbers = (lines: readonly string[]): number[] => lines.map((text) => parseInt(text));
const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);

test('lines wait while the disk is full, and are all written, in order, when it has room', async (context) => {
  const { disk, output, reports, lines } = fullOutput(context);
  for (let i = 0; i < 1000; i++) output.write(line(i));
  disk.free();
  await until(() => lines().length === 1001, 'every line');
  expect(numbers(lines().slice(0, -1))).toEqual(range(0, 1000));
  expect(reports).toEqual([]);
});

test('a line that was cut because the disk became full is completed when it has room', async (context) => {
  const { disk, output, lines } = fullOutput(context);
  const filler = join(disk.directory, 'filler');
  writeFileSync(filler, readFileSync(filler).subarray(10_000));
  for (let i = 0; i < 100; i++) output.write(line(i));
  await until(() => lines().join('\n').length % LINE_LENGTH !== 0, 'a line that was cut');
  disk.free();
  await until(() => lines().length === 101, 'every line');
  expect(lines().slice(0, -1)).toEqual(range(0, 100).map((i) => line(i).slice(0, -1)));
});

test('lines beyond 16 Mi characters are dropped, counted, and reported where they would be', async (context) => {
  const { disk, output, reports, failing, lines } = fullOutput(context);
  for (let i = 0; i < TOO_MANY; i++) output.write(line(i));
  await failing();
  disk.free();
  await until(() => reports.length > 0, 'the report');
  output.write(line(TOO_MANY));
  expect(await output.end(10_000)).toBe(true);

  const [{ dropped, code }] = reports;
  expect(reports).toHaveLength(1);
  expect(code).toBe('ENOSPC');
  const kept = TOO_MANY - dropped;
  expect(kept * LINE_LENGTH).toBeGreaterThan(15 * 2 ** 20);
  expect(kept * LINE_LENGTH).toBeLessThan(17 * 2 ** 20);
  const written = lines();
  expect(written.indexOf('REPORT')).toBe(kept);
  expect(numbers(written.slice(0, kept))).toEqual(range(0, kept));
  expect(numbers(written.slice(kept + 1, -1))).toEqual([TOO_MANY]);
});

test('end() waits until all lines are written, or until its timeout has passed', async (context) => {
  const { disk, output, lines } = fullOutput(context);
  const other = fullOutput(context);
  output.write('one\n');
  other.output.write('one\n');
  expect(await other.output.end(300)).toBe(true);
  disk.free();
  expect(await output.end(10_000)).toBe(true);
  expect(await output.end(10_000)).toBe(true);
  expect(lines()).toEqual(['one', '']);
});

test('a line that is too long to wait is dropped as a whole', async (context) => {
  const { disk, output, reports, failing, lines } = fullOutput(context);
  output.write('one\n');
  await failing();
  output.write(`${'x'.repeat(17 * 2 ** 20)}\n`);
  disk.free();
  await until(() => reports.length > 0, 'the report');
  output.write(line(2));
  expect(await output.end(10_000)).toBe(true);
  expect(lines().map((text) => text.split(' ')[0])).toEqual(['one', 'REPORT', '2', '']);
  expect(reports).toEqual([{ dropped: 1, code: 'ENOSPC' }]);
});

test('a line of any length is written when no other line waits', async (context) => {
  const { disk, output, reports, lines } = fullOutput(context);
  disk.free();
  output.write(`${'x'.repeat(17 * 2 ** 20)}\n`);
  await until(() => lines().length === 2, 'the long line');
  output.write(line(2));
  expect(await output.end(10_000)).toBe(true);
  expect(lines().map((text) => text.length)).toEqual([17 * 2 ** 20, LINE_LENGTH - 1, 0]);
  expect(reports).toEqual([]);
});

/** Returns node's arguments to run the code `main`, in which `output` writes to standard output. */
const withOutput = (main: string): string[] => {
  const source = new URL('../../src/telemetry/output.ts', import.meta.url).href;
  const start = `import { openOutput } from '${source}'; const output = openOutput(1, () => {});`;
  return [...NODE_ARGUMENTS, '--input-type=module', '--eval', start + main];
};

test('no line is written twice when end() gives up on a slow reader', async () => {
  const args = withOutput(`
    for (let i = 0; i < ${LATE_LINES}; i++) output.write(String(i).padEnd(${LINE_LENGTH - 1}) + '\\n');
    // Its timeout begins when the first write has begun: a process that stands still would write nothing.
    await new Promise((begun) => setImmediate(begun));
    await output.end(200);
    process.exit();
  `);
  // Writes to the shell's pipe block; writes to a pipe that node makes do not.
  const reader = spawn('sh', ['-c', '"$0" "$@" | cat', process.execPath, ...args]);
  let text = '';
  for await (const chunk of reader.stdout) {
    text += String(chunk);
    await sleep(20);
  }
  const written = numbers(text.split('\n').slice(0, -1));
  expect(written).toEqual(range(0, written.length));
  expect(written.length).toBeGreaterThan(0);
  expect(written.length).toBeLessThan(LATE_LINES);
});

test('the last lines before an uncaught exception are written', () => {
  const args = withOutput(`
    for (const line of ['one', 'two', 'three']) output.write(line + '\\n');
    throw new Error('uncaught');
  `);
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).toContain('uncaught');
  expect(stdout).toBe('one\ntwo\nthree\n');
});
