import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.spec.ts', 'client/test/**/*.spec.ts'],
    // Real servers, disks and kills: a test takes seconds at times, and many of them on two busy cores.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A file's tests start processes of their own.
    maxWorkers: 2,
  },
});
