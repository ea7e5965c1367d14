import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished, type TestContext } from 'vitest';
import { temporaryDirectory } from './service.js';
import { skip, works } from './shim.js';

const MIB = 2 ** 20;

/** A disk of its own, on which a power cut loses what was not flushed. */
export interface LossyDisk {
  readonly directory: string;
  /** Cuts the power: from now on, nothing reaches the disk, and every access fails. */
  cut(): void;
  /** Mounts it again, with what it has, once no process uses it. */
  restore(): void;
}

/**
 * Makes a disk: ext4 in a file, until the test ends. Skips the test where this user may not mount one.
 *
 * @param powerOff the program of test/faults/power-off.c
 */
export function lossyDisk(context: TestContext, powerOff: string, mib = 256): LossyDisk {
  const file = join(temporaryDirectory(), 'disk');
  const directory = temporaryDirectory();
  const descriptor = openSync(file, 'w');
  ftruncateSync(descriptor, mib * MIB);
  closeSync(descriptor);
  // By default, ext4 commits its journal, and with it data, every five seconds.
  const mount = ['-o', 'loop,commit=300', file, directory];
  if (!works('mkfs.ext4', '-q', '-F', file) || !works('mount', ...mount))
    skip(context, 'this user may not mount a file with ext4');
  onTestFinished(() => void execFileSync('umount', ['-l', directory]));
  return {
    directory,
    cut: () => void execFileSync(powerOff, [directory]),
    restore: () => {
      execFileSync('umount', [directory]);
      execFileSync('mount', mount);
    },
  };
}
