/**
 * What one process, and later several, tell each other: that a topic has new events, and what is said in chat
 * rooms.
 */
export abstract class Broker {
  /**
   * Wakes every watch of these topics. It carries no data: the log is the truth, so a ring that is lost,
   * doubled or early costs a look at the log and never an event.
   */
  abstract ring(topics: Iterable<string>): void;

  /** A watch's own bell; silence it when the watch ends. */
  abstract subscribe(topic: string): Bell;

  /** Enters a room, which is there as long as it has members; leave it when the chat ends. */
  abstract join(room: string, member: RoomMember): RoomSeat;

  /** Bells that are not silenced, and seats that are not left. */
  abstract readonly subscriptions: number;
  abstract readonly seats: number;
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

export interface RoomMember {
  /** Takes a framed message of the room; at once, because nobody waits for a member. */
  hear(framed: Buffer): void;

  /** Whether it should be given time before it hears more. */
  readonly isBehind: boolean;
}

export interface RoomSeat {
  /** Says a framed message to every other member: all hear a room's messages in one order. */
  say(framed: Buffer): void;

  /** Whether some other member is behind. */
  readonly isOthersBehind: boolean;

  leave(): void;
}
