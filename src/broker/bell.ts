/**
 * Wakes the watches of topics that have new events.
 *
 * A ring carries no data: the log is the truth. So a ring that is lost, doubled or early costs a watch one more look at
 * the log, or some latency, and never an event. A bell may therefore be carried by anything that says "this topic has
 * changed", within this process or from another one.
 */
export abstract class Bell {
  /**
   * Wakes the listeners of each topic, now or soon. It does not wait for them and it never throws: a bell that can't reach
   * its listeners loses the ring.
   */
  abstract ring(topics: Iterable<string>): void;

  /**
   * Wakes the listener at each ring of the topic, or of a topic of the pattern, until it unsubscribes. Subscribing twice is the
   * same as once.
   */
  abstract subscribe(topic: string, listener: BellListener): void;

  /** Once this returns, no ring of the topic or pattern wakes the listener. Without a subscription, this does nothing. */
  abstract unsubscribe(topic: string, listener: BellListener): void;

  /** Returns how many listeners of this process subscribe to a topic, or to a pattern of it. */
  abstract listenersOf(topic: string): number;

  /** The number of subscriptions of this process. If it grows without more watches, there is a leak. */
  abstract readonly subscriptions: number;
}

export interface BellListener {
  /**
   * Called at each ring of its topic, which may have new events. A ring calls thousands of listeners in a row, so this
   * takes little time, and it never throws.
   */
  onRing(): void;
}
