import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { endAtOnce } from './end-at-once.js';
import { tuneHeap } from './heap.js';

// Nothing that takes time to load is imported here: the signal handlers must be there before it,
// because the kernel drops signals that process 1, as which a container runs this, does not handle.

/** A signal to a process group comes twice, from the kernel and from who forwards it (milliseconds). */
const SAME_SIGNAL = 250;

const signals = { drain: (): void => process.exit(0) };
let signalled = 0;
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (signalled === 0) {
      signalled = performance.now();
      signals.drain();
    } else if (performance.now() - signalled > SAME_SIGNAL) {
      process.stderr.write(`${signal} again: ending at once\n`);
      endAtOnce(1);
    }
  });
}

// Most of a start is compiling; where this directory can be written, the next one takes less time: 10 to 40% were seen.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/feed', import.meta.url)));

tuneHeap();

const { run } = await import('./run.js');
await run(signals);
