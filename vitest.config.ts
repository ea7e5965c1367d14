import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.spec.ts'],
    // Real servers, disks and kills: a test takes seconds at times, on two shared cores.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // A file's tests start processes of their own.
    maxWorkers: 2,
  },
});
