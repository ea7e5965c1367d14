/**
 * The rooms of chats. A room exists as long as it has members and keeps no history.
 *
 * Every implementation promises:
 * 1. All members of a room receive its messages in one order. A member does not receive its own.
 * 2. Nobody waits for a slow member: ready() holds senders back only for a bounded time.
 */
export abstract class Rooms {
  /** Enters a room. The member receives what others send from now on, until it leaves. It joins each room once. */
  abstract join(room: string, member: RoomMember): RoomSeat;

  /** How many seats are taken: a member of three rooms has three. What grows without more members is a leak. */
  abstract readonly seats: number;
}

export interface RoomMember {
  /** Takes a framed message of one of its rooms. It may not wait, and it never throws. */
  receive(framed: Buffer): void;

  /** True while this member's queue is more than half full. Only the rooms of its own process ask. */
  readonly isCongested: boolean;
}

/** One member's place in one room. */
export interface RoomSeat {
  /**
   * Says whether the room can take a message now. Ask before each send().
   *
   * @returns undefined if so; else a promise, after which to ask again, because others that waited may have sent first
   */
  ready(): Promise<void> | undefined;

  /** Sends a framed message to every other member. */
  send(framed: Buffer): void;

  /** Leaves the room. A second call does nothing. */
  leave(): void;
}
