import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { type FollowedFile, followFile } from '../../src/auth/followed-file.js';
import { temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

/** Follows a file that is good if it is a number. */
async function follow(path: string) {
  const log: { level: number; problem?: string }[] = [];
  const logger = pino({}, { write: (line: string) => void log.push(JSON.parse(line) as never) });
  const values: number[] = [];
  const parse = (text: string): number => {
    const value = Number(text);
    if (text.trim() === '' || Number.isNaN(value)) throw new Error(`no number: ${text}`);
    return value;
  };
  const file: FollowedFile<number> = await followFile(path, parse, {
    what: 'the number',
    log: logger,
    onChange: () => values.push(file.value),
    interval: 20,
  });
  onTestFinished(() => file.close());
  const errors = () => log.filter(({ level }) => level === 50);
  return { file, values, errors };
}

test('a file whose directory is swapped by a symbolic link, as Kubernetes does, is read again', async () => {
  const directory = temporaryDirectory();
  const path = join(directory, 'number');
  const publish = (name: string, content: string): void => {
    mkdirSync(join(directory, name));
    writeFileSync(join(directory, name, 'number'), content);
    symlinkSync(name, join(directory, '..data_tmp'));
    renameSync(join(directory, '..data_tmp'), join(directory, '..data'));
  };
  publish('..1', '1');
  symlinkSync(join('..data', 'number'), path);
  const { values, errors } = await follow(path);
  publish('..2', '2');
  rmSync(join(directory, '..1'), { recursive: true });
  await until(() => values.length === 1, 'the second');
  publish('..3', '3');
  await until(() => values.length === 2, 'the third');
  expect(values).toEqual([2, 3]);
  expect(errors()).toEqual([]);
});

test('a bad content is refused with one line, and the last good one stays until the next', async () => {
  const path = join(temporaryDirectory(), 'number');
  writeFileSync(path, '1');
  const { file, values, errors } = await follow(path);
  for (const bad of ['x', '']) {
    const before = errors().length;
    writeFileSync(path, bad);
    await eventually(() => expect(errors()).toHaveLength(before + 1));
    await sleep(100); // It is not said again.
    expect(errors()).toHaveLength(before + 1);
    expect(file.value).toBe(1);
  }
  rmSync(path);
  await eventually(() => expect(errors().at(-1)?.problem).toContain('ENOENT'));
  expect(file.value).toBe(1);
  writeFileSync(path, '2');
  await until(() => values.length > 0, 'the next good one');
  expect(file.value).toBe(2);
  writeFileSync(path, 'x');
  await eventually(() => expect(errors()).toHaveLength(4));
});

test('a content that is still being written is not used', async () => {
  const path = join(temporaryDirectory(), 'number');
  writeFileSync(path, '1');
  const { file, values, errors } = await follow(path);
  // Each half is another one, so that no two looks at the file find the same half.
  for (let i = 100; i < 115; i++) {
    writeFileSync(path, `${i}`);
    await sleep(30);
    writeFileSync(path, `${i}000`);
    await sleep(30);
  }
  await until(() => file.value === 114_000, 'the last one, whole');
  expect(values.filter((value) => value < 1_000)).toEqual([]);
  expect(errors()).toEqual([]);
});

test('a first content that is bad is thrown', async () => {
  const path = join(temporaryDirectory(), 'number');
  await expect(follow(path)).rejects.toThrow('ENOENT');
  writeFileSync(path, 'x');
  await expect(follow(path)).rejects.toThrow('no number');
});
