import { endAtOnce } from './end-at-once.js';

// Nothing else is imported here: the signal handlers must be there before anything that takes time to load,
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

const { run } = await import('./run.js');
await run(signals);
