import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, getFileInfo } from 'prettier';
import { describe, expect, test } from 'vitest';
import { mutants } from './mutants.mjs';
import { mutate } from './place.mjs';

const FILE = `class A {
  start() {
    this.open(one, two);
  }
  stop() {
    this.open(
      one,
      two,
    );
  }
}`;
const MUTANT = {
  name: 'opens nothing',
  file: 'a.ts',
  from: 'open(one, two)',
  to: 'shut()',
  tests: [],
};

describe('a mutant', () => {
  test('is put in within the method that it names, however the lines are broken', () => {
    const start = mutate(FILE, { ...MUTANT, within: 'start' });
    expect(start).toContain('start() {\n    this.shut();');
    const stop = mutate(FILE, { ...MUTANT, within: 'stop' });
    expect(stop).toContain('stop() {\n    this.shut();');
  });

  test('is refused where its text is more than once, or not at all', () => {
    expect(() => mutate(FILE, MUTANT)).toThrow('opens nothing: a.ts has this 2 times, not once');
    expect(() => mutate(FILE, { ...MUTANT, within: 'A' })).toThrow('2 times');
    expect(() => mutate(FILE, { ...MUTANT, within: 'restart' })).toThrow('0 times');
    expect(() => mutate(FILE, { ...MUTANT, from: 'pen(one, two)' })).toThrow('0 times');
  });
});

/** The file's content in lines of this width, where prettier knows its language. */
async function broken(file: string, width: number): Promise<string> {
  const path = fileURLToPath(new URL(`../../${file}`, import.meta.url));
  const content = readFileSync(path, 'utf8');
  const { inferredParser } = await getFileInfo(path);
  if (!inferredParser) return content;
  return format(content, { parser: inferredParser, singleQuote: true, printWidth: width });
}

test.each([60, 80, 140])('each mutant finds its place in lines of %i characters', async (width) => {
  const files = new Map<string, string>();
  for (const mutant of mutants) {
    const { file } = mutant;
    if (!files.has(file)) files.set(file, await broken(file, width));
    expect(() => mutate(files.get(file)!, mutant)).not.toThrow();
  }
});
