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

  /** Until it unsubscribes, who follows a topic hears of new events; the same follower not twice. */
  abstract subscribe(topic: string, follower: Follower): void;

  abstract unsubscribe(topic: string, follower: Follower): void;

  /** Enters a room, which is there as long as it has members; leave it when the chat ends. */
  abstract join(room: string, member: RoomMember): RoomSeat;

  /** Followers that have not unsubscribed, and seats that are not left. */
  abstract readonly subscriptions: number;
  abstract readonly seats: number;
}

export interface Follower {
  /** Its topic may have new events. Called for thousands in a row, so it does its work at once and never throws. */
  hearBell(): void;
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
