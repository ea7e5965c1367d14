import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { readArguments } from './process/command-line.js';
import { handleSignals } from './process/signals.js';

// This file imports nothing that takes time to load, because the signal handlers must be set first: in a container
// this is process 1, for which the kernel drops each signal that has no handler.
const signals = handleSignals();

const work = readArguments(process.argv.slice(2));

// A start mostly compiles. If this directory can be written, the next start finds the compiled code there.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/feed', import.meta.url)));

if (work.name === 'restore') {
  const { restore } = await import('./process/restore.js');
  await restore(work.file, signals);
} else {
  const { run } = await import('./process/run.js');
  await run(signals);
}
