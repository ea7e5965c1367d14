import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Coverage } from './coverage.js';
import { mutated, type Random } from './mutate.js';

/** Code that parses bytes from outside, and what it promises for any bytes. */
export interface Target {
  readonly name: string;
  /** Inputs to begin with. */
  readonly seeds: readonly Buffer[];
  /** What is worth inserting. */
  readonly words?: readonly Buffer[];
  /** Throws if a promise is broken. The parser's own refusal of an input is no breach. */
  readonly run: (input: Buffer) => void;
}

export interface FuzzOptions {
  readonly coverage: Coverage;
  readonly random: Random;
  readonly milliseconds: number;
  /** Where inputs are kept that ran new code, in a directory for each target. */
  readonly corpus: string;
  /** True: new ones are written there. */
  readonly keeps: boolean;
}

/** An input for which a promise is broken. */
export class Breach extends Error {}

/** V8's coverage is looked at after so many inputs, because a look takes as long as hundreds of them. */
const BATCH = 512;
/** The most that one input may take (milliseconds). */
const HANG = 1_000;

/**
 * Runs a target with inputs of its corpus, and then with changes of them, until the time is over. An input that runs code
 * that none before has run joins the corpus.
 *
 * @returns how many inputs were run, and how many joined
 * @throws Breach; the input is written to the corpus then, so that it is tried first from now on
 */
export function fuzz(target: Target, options: FuzzOptions): { runs: number; found: number } {
  const { coverage, random, milliseconds, corpus, keeps } = options;
  const directory = join(corpus, target.name);
  const known = [...target.seeds, ...read(directory)];
  coverage.hasGrown(true);
  for (const input of known) runOne(target, input, directory);
  coverage.hasGrown(true);
  const end = performance.now() + milliseconds;
  let runs = known.length;
  let found = 0;
  while (performance.now() < end) {
    const batch = Array.from({ length: BATCH }, () => {
      const input = known[random(known.length)];
      return mutated(input, known[random(known.length)], target.words ?? [], random);
    });
    for (const input of batch) runOne(target, input, directory);
    runs += batch.length;
    for (const input of newOnes(target, batch, coverage)) {
      known.push(input);
      found++;
      if (keeps) keep(directory, input);
    }
  }
  return { runs, found };
}

/** Returns those inputs of a batch, which was just run, that ran new code: it halves the batch, and runs the halves again. */
function newOnes(target: Target, batch: readonly Buffer[], coverage: Coverage): Buffer[] {
  if (!coverage.hasGrown(batch.length === 1)) return [];
  if (batch.length === 1) return [...batch];
  const middle = batch.length >> 1;
  return [batch.slice(0, middle), batch.slice(middle)].flatMap((half) => {
    for (const input of half) target.run(input);
    return newOnes(target, half, coverage);
  });
}

function runOne(target: Target, input: Buffer, directory: string): void {
  // A busy machine may hold up any of these, but not each time.
  for (let attempt = 1; timeOf(target, input, directory) > HANG; attempt++) {
    if (attempt === 3)
      throw new Breach(`${target.name}: took over ${HANG} ms (${keep(directory, input)})`);
  }
}

/** Runs the target, and returns how long it took, in milliseconds. */
function timeOf(target: Target, input: Buffer, directory: string): number {
  const startedAt = performance.now();
  try {
    target.run(input);
  } catch (error) {
    const file = keep(directory, input);
    throw new Breach(`${target.name}: ${String(error)} (the input is ${file})`, { cause: error });
  }
  return performance.now() - startedAt;
}

function read(directory: string): Buffer[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .toSorted()
    .map((name) => readFileSync(join(directory, name)));
}

function keep(directory: string, input: Buffer): string {
  const name = createHash('sha256').update(input).digest('hex').slice(0, 16);
  mkdirSync(directory, { recursive: true });
  const file = join(directory, name);
  writeFileSync(file, input);
  return file;
}
