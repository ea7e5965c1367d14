import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { follow } from '../../src/config/followed.js';
import { temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

/** Follows files that are good if each is a number. */
async function followNumbers(...paths: string[]) {
  const values: number[] = [];
  const problems: string[] = [];
  let restored = 0;
  const make = (contents: readonly Buffer[]): number => {
    const numbers = contents.map((content) => {
      const text = String(content);
      const value = Number(text);
      if (text.trim() === '' || Number.isNaN(value)) throw new Error(`no number: ${text}`);
      return value;
    });
    return numbers.reduce((sum, number) => sum + number);
  };
  const read = () => Promise.all(paths.map((path) => readFile(path)));
  const file = await follow(read, make, {
    onChange: () => values.push(file.value),
    onRefused: (problem) => problems.push(problem),
    onRestored: () => void restored++,
    interval: 20,
  });
  onTestFinished(() => file.close());
  return { file, values, problems, restored: () => restored };
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
  const { values, problems } = await followNumbers(path);
  publish('..2', '2');
  rmSync(join(directory, '..1'), { recursive: true });
  await until(() => values.length === 1, 'the second');
  publish('..3', '3');
  await until(() => values.length === 2, 'the third');
  expect(values).toEqual([2, 3]);
  expect(problems).toEqual([]);
});

test('a bad content is refused with one line, and the last good one stays until the next', async () => {
  const path = join(temporaryDirectory(), 'number');
  writeFileSync(path, '1');
  const { file, values, problems } = await followNumbers(path);
  for (const bad of ['x', '']) {
    const before = problems.length;
    writeFileSync(path, bad);
    await eventually(() => expect(problems).toHaveLength(before + 1));
    await sleep(800); // It is not said again.
    expect(problems).toHaveLength(before + 1);
    expect(file.value).toBe(1);
  }
  rmSync(path);
  await eventually(() => expect(problems.at(-1)).toContain('ENOENT'));
  expect(file.value).toBe(1);
  writeFileSync(path, '2');
  await until(() => values.length > 0, 'the next good one');
  expect(file.value).toBe(2);
  writeFileSync(path, 'x');
  await eventually(() => expect(problems).toHaveLength(4));
});

test('contents that are back as they were are said to be, and a second loss is reported again', async () => {
  const path = join(temporaryDirectory(), 'number');
  writeFileSync(path, '1');
  const { values, problems, restored } = await followNumbers(path);
  for (let losses = 1; losses <= 2; losses++) {
    writeFileSync(path, 'x');
    await until(() => problems.length === losses, 'a report');
    writeFileSync(path, '1');
    await until(() => restored() === losses, 'the word that it is back');
  }
  expect(values).toEqual([]);
});

test('several files are used together', async () => {
  const directory = temporaryDirectory();
  const [one, two] = [join(directory, 'one'), join(directory, 'two')];
  writeFileSync(one, '1');
  writeFileSync(two, '2');
  const { file, values, problems } = await followNumbers(one, two);
  expect(file.value).toBe(3);
  writeFileSync(two, '20');
  await until(() => values.length === 1, 'the second value');
  expect(values).toEqual([21]);
  expect(problems).toEqual([]);
});

test('a content that is still being written is not used', async () => {
  const path = join(temporaryDirectory(), 'number');
  writeFileSync(path, '1');
  const { file, values, problems } = await followNumbers(path);
  // Each half is another one, so that no two looks at the file find the same half.
  for (let i = 100; i < 115; i++) {
    writeFileSync(path, `${i}`);
    await sleep(30);
    writeFileSync(path, `${i}000`);
    await sleep(30);
  }
  await until(() => file.value === 114_000, 'the last one, whole');
  expect(values.filter((value) => value < 1_000)).toEqual([]);
  expect(problems).toEqual([]);
});

test('a first content that is bad is thrown', async () => {
  const path = join(temporaryDirectory(), 'number');
  await expect(followNumbers(path)).rejects.toThrow('ENOENT');
  writeFileSync(path, 'x');
  await expect(followNumbers(path)).rejects.toThrow('no number');
});
