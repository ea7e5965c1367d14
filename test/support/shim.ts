import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, type TestContext } from 'vitest';

/** Returns true when the command can be started and exits with 0. */
export const works = (command: string, ...args: string[]): boolean =>
  spawnSync(command, args).status === 0;

/** Skips a test, and prints the reason, because not every reporter lists skipped tests. */
export function skip(context: TestContext, reason: string): never {
  console.warn(`skipped: ${context.task.name}: ${reason}`);
  return context.skip(reason);
}

/**
 * Builds a C file into a library for LD_PRELOAD, once for the tests of a file or of a describe block.
 *
 * @returns a function that gives the library's path; where there is no gcc, it skips the test that calls it
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
