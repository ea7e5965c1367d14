import { getHeapStatistics } from 'node:v8';

/** The time (milliseconds) between two looks at how much is taken. */
const INTERVAL = 50;
/** All is collected once more is taken than this many times what was in use, and SLACK bytes. */
const FACTOR = 1.6;
const SLACK = 96 * 2 ** 20;

/**
 * Bounds the memory of what is no longer used and not collected yet. V8 begins to collect once heap and buffers have grown by half
 * (bin/feed-server), but it is late where buffers come and go fast: with 260 MiB in use and 300 MB of new ones a second, it let
 * 1,300 MiB be taken. So where it is late, all is collected at once. That holds everything up for 10 to 90 ms
 * there, and for 175 to 275 ms with a heap of 240 MiB of small objects.
 *
 * It does nothing in a process that was started without node's `--expose-gc`.
 */
export function boundGarbage(): void {
  const { gc } = globalThis;
  if (!gc) return;
  let used = Infinity;
  setInterval(() => {
    const now = taken();
    used = Math.min(used, now);
    if (now <= FACTOR * used + SLACK) return;
    gc({ type: 'major', execution: 'sync' });
    used = taken();
  }, INTERVAL).unref();
}

/** Returns the bytes of V8's heap and of buffers. */
function taken(): number {
  const { used_heap_size: heap, external_memory: buffers } = getHeapStatistics();
  return heap + buffers;
}
