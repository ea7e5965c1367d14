/** Events are worked on for so long (milliseconds) before the browser gets to draw and to answer the reader. */
const SLICE = 8;
/** A page that is hidden draws nothing; it works on after this long (milliseconds). */
const HIDDEN = 200;

/** Divides the time of the page between events that come and the reader. */
export class Pace {
  private lastRest = performance.now();

  /** Called after each piece of work: waits until the browser draws, if it has not had the time to for a while. */
  async rest(): Promise<void> {
    if (performance.now() - this.lastRest < SLICE) return;
    await nextFrame();
    this.lastRest = performance.now();
  }
}

/** Waits until the browser draws next, or a little while if the page is hidden. */
export const nextFrame = (): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, HIDDEN);
    requestAnimationFrame(() => {
      clearTimeout(timer);
      resolve();
    });
  });
