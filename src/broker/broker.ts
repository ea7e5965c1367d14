/**
 * Tells watches that their topic has new events. It carries no data: the log is the truth, so a ring that
 * is lost, doubled or early costs a look at the log and never an event.
 */
export abstract class Broker {
  /** Wakes every watch of these topics. */
  abstract ring(topics: Iterable<string>): void;

  /** A watch's own bell; silence it when the watch ends. */
  abstract subscribe(topic: string): Bell;

  /** Bells that are not silenced. */
  abstract readonly subscriptions: number;
}

export interface Bell {
  /** Forgets rings heard so far. Before the log is read, so that a ring during the read is not missed. */
  clear(): void;

  /**
   * Resolves when the bell has rung since clear(), or after some milliseconds (0: never).
   *
   * @returns whether it rang
   */
  wait(milliseconds: number): Promise<boolean>;

  /** Rings this bell alone: its watch has another reason to look up. */
  ring(): void;

  silence(): void;
}
