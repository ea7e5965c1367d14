/** How fast the log's time may run to catch up with a clock that was set: 10% more or less than real time. */
const SLEW = 0.1;

/**
 * The log's own time, in milliseconds: near the machine's clock, but never going back and never jumping, so that
 * setting the clock neither ends a deduplication window nor makes events old.
 *
 * @param newest the time of the newest event stored
 */
export function logClock(newest: number): () => number {
  let time = Math.max(newest, Date.now());
  let readAt = performance.now();
  return () => {
    const at = performance.now();
    const elapsed = at - readAt;
    readAt = at;
    const behind = Date.now() - (time + elapsed);
    time += elapsed + Math.min(Math.max(behind, -SLEW * elapsed), SLEW * elapsed);
    return Math.floor(time);
  };
}
