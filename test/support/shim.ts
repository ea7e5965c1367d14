import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, type TestContext } from 'vitest';

/** Whether a command is there and works. */
export const works = (command: string, ...args: string[]): boolean =>
  spawnSync(command, args).status === 0;

/** Leaves a test out, and says why also where skipped tests are not listed. */
export function skip(context: TestContext, reason: string): never {
  console.warn(`skipped: ${context.task.name}: ${reason}`);
  return context.skip(reason);
}

/**
 * A library for LD_PRELOAD, built from C for the tests of a file or describe block.
 *
 * @returns where it is; a test that asks is skipped where there is no gcc
 */
export function useShim(source: URL): (context: TestContext) => string {
  const path = fileURLToPath(source);
  let library: string | undefined;

  beforeAll(() => {
    if (!works('gcc', '--version')) return undefined;
    const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
    library = join(directory, `${basename(path, '.c')}.so`);
    const options = ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-Werror', '-pthread'];
    execFileSync('gcc', [...options, '-o', library, path, '-ldl']);
    return () => rmSync(directory, { recursive: true, force: true });
  });

  return (context) => library ?? skip(context, `there is no gcc to build ${basename(path)}`);
}
