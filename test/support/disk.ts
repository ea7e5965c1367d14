import { execFileSync } from 'node:child_process';
import { rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished, type TestContext } from 'vitest';
import { temporaryDirectory } from './service.js';
import { skip, works } from './shim.js';

/** A small disk of its own, which is gone after the test; where nobody may mount one, the test is skipped. */
export function smallDisk(context: TestContext, mib: number) {
  const directory = temporaryDirectory();
  if (!works('mount', '-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', directory)) {
    skip(context, 'this user may not mount a tmpfs');
  }
  onTestFinished(() => void execFileSync('umount', ['-l', directory]));
  const others = join(directory, 'others');
  return {
    directory,
    /** To the last byte, as others on the same disk may do. */
    fill: () => {
      const { bavail, bsize } = statfsSync(directory);
      writeFileSync(others, Buffer.alloc(bavail * bsize));
    },
    free: () => rmSync(others),
    grow: (to: number) => execFileSync('mount', ['-o', `remount,size=${to}m`, directory]),
  };
}
