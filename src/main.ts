import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';
import { handleSignals } from './process/signals.js';

// Nothing that takes time to load is imported here: the signal handlers must be there before it,
// because the kernel drops signals that process 1, as which a container runs this, does not handle.
const signals = handleSignals();

// Most of a start is compiling. Where this directory can be written, the next start takes less time.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/feed', import.meta.url)));

const { run } = await import('./process/run.js');
await run(signals);
