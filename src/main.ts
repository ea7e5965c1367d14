import { write } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { endAtOnce } from './end-at-once.js';
import { outlivesTerminal } from './terminal.js';

// Nothing that takes time to load is imported here: the signal handlers must be there before it,
// because the kernel drops signals that process 1, as which a container runs this, does not handle.

/** A signal to a process group comes twice, from the kernel and from who forwards it (milliseconds). */
const SAME_SIGNAL = 250;

/** How long (milliseconds) the last words may take, to a terminal that is held by Ctrl-S. */
const LAST_WORDS = 100;

const STANDARD_ERROR = 2;

const ignoresHangup = outlivesTerminal();
const signals = { drain: (): void => process.exit(0) };
let signalled = 0;
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (signal === 'SIGHUP' && ignoresHangup) return;
    if (signalled === 0) {
      signalled = performance.now();
      signals.drain();
    } else if (performance.now() - signalled > SAME_SIGNAL) {
      write(STANDARD_ERROR, `${signal} again: ending at once\n`, () => endAtOnce(1));
      setTimeout(endAtOnce, LAST_WORDS, 1);
    }
  });
}

// Most of a start is compiling; where this directory can be written, the next one takes less time: 10 to 40% were seen.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/feed', import.meta.url)));

const { run } = await import('./run.js');
await run(signals);
