import { execFileSync } from 'node:child_process';
import { rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished, type TestContext } from 'vitest';
import { temporaryDirectory } from './service.js';
import { skip, works } from './shim.js';

/** Mounts a disk of `mib` MiB (a tmpfs) until the test ends. Skips the test where this user may not mount one. */
export function smallDisk(context: TestContext, mib: number) {
  const directory = temporaryDirectory();
  if (!works('mount', '-t', 'tmpfs', '-o', `size=${mib}m`, 'tmpfs', directory)) {
    skip(context, 'this user may not mount a tmpfs');
  }
  onTestFinished(() => void execFileSync('umount', ['-l', directory]));
  const filler = join(directory, 'filler');
  return {
    directory,
    /** Fills the disk to the last byte, or but for some KiB, as another program on the same disk may do. */
    fill: (leftKib = 0) => {
      const { bavail, bsize } = statfsSync(directory);
      writeFileSync(filler, Buffer.alloc(bavail * bsize - leftKib * 1024));
    },
    free: () => rmSync(filler),
    grow: (to: number) => execFileSync('mount', ['-o', `remount,size=${to}m`, directory]),
  };
}
