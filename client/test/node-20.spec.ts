import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { Subject } from './service.js';

const here = fileURLToPath(new URL('.', import.meta.url));

/** The oldest node that the client supports. */
const OLDEST = 20;

/** A node of that version in the PATH. The project's own, which comes first there, is newer. */
const oldNode = (process.env.PATH ?? '')
  .split(delimiter)
  .map((directory) => join(directory, 'node'))
  .find((node) => existsSync(node) && versionOf(node) === OLDEST);

function versionOf(node: string): number {
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' });
  return Number(/^v(\d+)/.exec(stdout ?? '')?.[1]);
}

if (!oldNode) console.log(`skipped: there is no node ${OLDEST} in the PATH to try the client on`);

describe.skipIf(!oldNode)(`on node ${OLDEST}`, () => {
  test('a program uploads, watches, chats and ends, without a warning', async () => {
    const { address } = await Subject.start();
    const { stdout, stderr } = spawnSync(oldNode!, [join(here, 'smoke.mjs'), address], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({ stored: 3, bodies: ['a', 'b', 'c'], many: 20 });
  });
});
