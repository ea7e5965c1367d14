import { Histogram, LATENCY_BOUNDS } from './histogram.js';

/** A timer is to fire this often (milliseconds). By how much it is late is what everything else has to wait, too. */
const INTERVAL = 100;

/** Measures, ten times a second, how long the event loop lets work wait. */
export class EventLoopDelay {
  readonly seconds = new Histogram(LATENCY_BOUNDS);
  private last = performance.now();
  private readonly timer = setInterval(() => {
    const now = performance.now();
    this.seconds.observe(Math.max(0, now - this.last - INTERVAL) / 1000);
    this.last = now;
  }, INTERVAL).unref();

  stop(): void {
    clearInterval(this.timer);
  }
}
