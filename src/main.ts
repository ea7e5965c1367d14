// Only node's own modules here: the signal handlers must be there before anything that takes time to load,
// because the kernel drops signals that process 1, as which a container runs this, does not handle.

const signals = { count: 0, drain: (): void => process.exit(0) };
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    if (++signals.count === 1) {
      signals.drain();
    } else {
      // The store survives this like a crash.
      process.stderr.write(`${signal} again: ending at once\n`);
      process.exit(1);
    }
  });
}

const { run } = await import('./run.js');
await run(signals);
