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

/** Returns the path of what a C file was built into; where there is no gcc, it skips the test that calls it. */
type Built = (context: TestContext) => string;

/** Builds a C file into a library for LD_PRELOAD, once for the tests of a file or of a describe block. */
export const useShim = (source: URL): Built =>
  useBuilt(source, '.so', ['-shared', '-fPIC', '-pthread']);

/** Builds a C file into a program, once for the tests of a file or of a describe block. */
export const useProgram = (source: URL): Built => useBuilt(source, '', []);

function useBuilt(source: URL, suffix: string, options: readonly string[]): Built {
  const path = fileURLToPath(source);
  let built: string | undefined;

  beforeAll(() => {
    if (!works('gcc', '--version')) return undefined;
    const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
    built = join(directory, `${basename(path, '.c')}${suffix}`);
    const warnings = ['-Wall', '-Wextra', '-Werror'];
    execFileSync('gcc', [...options, '-O1', ...warnings, '-o', built, path, '-ldl']);
    return () => rmSync(directory, { recursive: true, force: true });
  });

  return (context) => built ?? skip(context, `there is no gcc to build ${basename(path)}`);
}
