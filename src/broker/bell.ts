/**
 * Wakes the watches of topics that have new events.
 *
 * A ring carries no data: the log is the truth. So a ring that is lost, doubled or early costs a watch one more look at
 * the log, or some latency, and never an event. A bell may therefore be carried by anything that says "this topic has
 * changed", within this process or from another one.
 */
export abstract class Bell {
  /** Wakes every listener of each topic, before it returns. */
  abstract ring(topics: Iterable<string>): void;

  /** Has a listener woken at each ring of a topic, until it unsubscribes. Subscribing twice is the same as once. */
  abstract subscribe(topic: string, listener: BellListener): void;

  abstract unsubscribe(topic: string, listener: BellListener): void;

  /** How many listeners are subscribed. What grows without more watches is a leak. */
  abstract readonly subscriptions: number;
}

export interface BellListener {
  /**
   * Called at each ring of its topic, which may have new events. A ring calls thousands of listeners in a row, so this
   * takes little time, and it never throws.
   */
  onRing(): void;
}
