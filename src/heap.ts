import { constants, type NodeGCPerformanceDetail, PerformanceObserver } from 'node:perf_hooks';
import { getHeapSpaceStatistics, getHeapStatistics, setFlagsFromString } from 'node:v8';

/** Bytes of V8's young generation, of which half is in use at a time. */
const MAX_YOUNG_BYTES = 32 * 2 ** 20;
/** Below so many bytes, the heap may grow to four times what was alive before all of it is collected. */
const SMALL_HEAP_BYTES = 64 * 2 ** 20;

/**
 * Sets V8 up for this service; both flags are read each time they matter, and node started by hand has them too.
 *
 * The young generation would grow to 128 MiB when thousands of streams open at once, and stay: with 32, 10,000 idle
 * watches take 9 KiB less each.
 *
 * V8 counts buffers, and lets a small heap hardly grow: with 27 MiB alive, uploads at full speed had all of it
 * collected three times a second. It is once a second now.
 */
export function tuneHeap(): void {
  let isFull = false;
  const boundYoung = (): void => {
    const { space_size } = getHeapSpaceStatistics().find(
      ({ space_name }) => space_name === 'new_space',
    )!;
    if (space_size >= MAX_YOUNG_BYTES === isFull) return;
    isFull = !isFull;
    setFlagsFromString(`--semi-space-growth-factor=${isFull ? 1 : 2}`);
  };
  let isSmall = false;
  const letSmallGrow = (): void => {
    if (getHeapStatistics().used_heap_size < SMALL_HEAP_BYTES === isSmall) return;
    isSmall = !isSmall;
    setFlagsFromString(`--heap-growing-percent=${isSmall ? 300 : 0}`); // 0: as V8 sees fit
  };
  letSmallGrow();
  new PerformanceObserver((list) => {
    boundYoung();
    // Only then what is used is what is alive.
    if (list.getEntries().some(isOfWholeHeap)) letSmallGrow();
  }).observe({ type: 'gc' });
}

function isOfWholeHeap(entry: { readonly entryType: string }): boolean {
  const { kind } = (entry as unknown as { detail: NodeGCPerformanceDetail }).detail;
  return kind === constants.NODE_PERFORMANCE_GC_MAJOR;
}
