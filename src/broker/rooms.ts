/**
 * The rooms of chats. A room exists as long as it has members and keeps no history. Its members may be in several
 * processes, and a process asks only its own members for their state.
 *
 * Every implementation promises:
 * 1. All members of a room receive its messages in one order. A member does not receive its own.
 * 2. A room holds a sender back while a member's queue is more than half full, so that a member that reads can catch up.
 *    It does so for a bounded time: nobody waits for a slow member. A message of another process, whose senders do not know of
 *    that member, waits instead.
 */
export abstract class Rooms {
  /**
   * Enters a room. The member receives what others send from now on, until it leaves. A member that is in a room does not
   * join that room again.
   */
  abstract join(room: string, member: RoomMember): RoomSeat;

  /**
   * The number of seats that members in this process hold: a member of three rooms has three. If it grows without more
   * members, there is a leak.
   */
  abstract readonly seats: number;

  /** The number of rooms that have members in this process. */
  abstract readonly open: number;

  /** Returns true if a room has members in this process. */
  abstract isOpen(room: string): boolean;

  /** Releases everything, once no member is left. */
  close(): Promise<void> {
    return Promise.resolve();
  }
}

export interface RoomMember {
  /** Takes a framed message of one of the member's rooms. It does not wait, and it never throws. */
  receive(framed: Buffer): void;

  /** Called when messages of its rooms may be lost, such as those of other processes while the network is cut. */
  onInterruption(): void;

  /** True while the member's queue is more than half full. */
  readonly isCongested: boolean;
}

/** A room could not carry a message. Whether other members got it is not known. */
export class RoomInterruptedError extends Error {}

/** One member's place in one room. */
export interface RoomSeat {
  /**
   * Sends a framed message to every other member. A member sends one message at a time, and none after it has left.
   *
   * @returns undefined if the room has taken the message; else a promise that resolves once it has. The promise also
   *   resolves, soon, if the member leaves first, and the message is then dropped. It rejects with a RoomInterruptedError
   *   if the room can't carry the message, which does not happen between members of one process
   */
  send(framed: Buffer): Promise<void> | undefined;

  /** Leaves the room: the member receives nothing after this returns. A second call does nothing. */
  leave(): void;
}
