import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { Coverage } from './coverage.js';
import { Breach, fuzz, type FuzzOptions } from './fuzz.js';
import { randomOf } from './mutate.js';
import { targets } from './targets.js';

/** How long each target is fuzzed. `npm run fuzz` takes longer, and keeps the inputs that it finds. */
const SECONDS = Number(process.env.FEED_TEST_FUZZ_SECONDS ?? 2);
const KEEPS = process.env.FEED_TEST_FUZZ_KEEP !== undefined;
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
const CORPUS = fileURLToPath(new URL('corpus', import.meta.url));

function withCoverage<T>(work: (options: FuzzOptions) => T, more: Partial<FuzzOptions> = {}): T {
  const coverage = new Coverage((url) => /\/(src|client\/src)\//.test(url));
  try {
    return work({
      coverage,
      random: randomOf(SEED),
      milliseconds: SECONDS * 1_000,
      corpus: CORPUS,
      keeps: KEEPS,
      ...more,
    });
  } finally {
    coverage.close();
  }
}

describe(`what parses bytes from outside keeps its promises for any bytes (FEED_TEST_SEED=${SEED})`, () => {
  test.each(targets.map((target) => [target.name, target] as const))(
    '%s',
    { timeout: SECONDS * 1_000 + 120_000 },
    (name, target) =>
      withCoverage((options) => {
        const { runs, found } = fuzz(target, options);
        console.log(
          `${name}: ${runs} inputs, ${found} of them ran new code, ${options.coverage.size} characters of code in all`,
        );
        expect(runs).toBeGreaterThan(0);
      }),
  );
});

test(
  'the fuzzer finds what only a chain of rare bytes reaches, and keeps it',
  { timeout: 120_000 },
  () => {
    const corpus = mkdtempSync(join(tmpdir(), 'feed-fuzz-'));
    try {
      const run = (input: Buffer): void => {
        if (input[0] !== 0xfe) return;
        if (input[1] !== 0x33) return;
        if (input[2] === 0x77) throw new Error('there');
      };
      const target = { name: 'chain', seeds: [Buffer.alloc(3)], run };
      const attempt = (milliseconds: number, seeds = target.seeds) =>
        withCoverage((options) => fuzz({ ...target, seeds }, options), {
          // This file's own code is what is fuzzed here.
          coverage: new Coverage((url) => url.includes('/test/fuzz/fuzz.spec')),
          corpus,
          milliseconds,
          random: randomOf(1),
        });
      expect(() => attempt(100_000)).toThrow(Breach);
      // The input is in the corpus now, so it is found at once.
      expect(() => attempt(0)).toThrow(/there/);
    } finally {
      rmSync(corpus, { recursive: true });
    }
  },
);
