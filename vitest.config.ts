import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const client = (file: string): string =>
  fileURLToPath(new URL(`client/src/${file}`, import.meta.url));

export default defineConfig({
  resolve: {
    // Tests see the client's sources. The built package is what its own programs and the examples use.
    alias: [
      { find: /^@feed-events\/client$/, replacement: client('index.ts') },
      { find: /^@feed-events\/client\/nest$/, replacement: client('nest/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.spec.ts', 'client/test/**/*.spec.ts', 'console/test/**/*.spec.ts'],
    // Real servers, disks and kills: a test takes seconds at times, and ten times as long where other work takes the machine.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // A file's tests start processes of their own.
    maxWorkers: 2,
  },
});
