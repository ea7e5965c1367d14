// Loaded into a service by node's --import, beside --expose-gc. At SIGUSR2 it says how much memory (bytes) is held: what V8 has not
// collected yet is not.
const { gc } = globalThis;
if (!gc) throw new Error('--expose-gc is missing');

process.on('SIGUSR2', () => {
  // Buffers that the first one finds unused are freed by the second.
  gc();
  gc();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  process.stderr.write(`held ${heapUsed + arrayBuffers}\n`);
});
