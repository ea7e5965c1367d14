/**
 * Returns a function that passes a message on, unless it has passed one on within the last `interval` milliseconds.
 *
 * @param lastAt when a message was passed on last, as performance.now() has it. By default, the first one is passed on at once
 */
export function throttled(
  write: (message: string) => void,
  interval: number,
  lastAt = -Infinity,
): (message: string) => void {
  return (message) => {
    const now = performance.now();
    if (now - lastAt < interval) return;
    lastAt = now;
    write(message);
  };
}
