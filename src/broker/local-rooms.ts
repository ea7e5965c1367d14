import { setImmediate as nextTurn } from 'node:timers/promises';
import { type RoomMember, Rooms, type RoomSeat } from './rooms.js';

/**
 * For this many turns of the event loop, senders wait for a member whose queue is more than half full. A member that reads
 * catches up in that time. Nobody waits any longer for one that does not.
 */
const PATIENCE_TURNS = 16;

/** A member, shared by its seats in all rooms. */
interface Standing {
  readonly member: RoomMember;
  /** The turn in which its queue became more than half full. */
  congestedSince: number;
}

/** Rooms whose members are all in this process. */
export class LocalRooms extends Rooms {
  private readonly rooms = new Map<string, Set<Standing>>();
  private readonly standings = new WeakMap<RoomMember, Standing>();
  /** Turns of the event loop in which some sender waited. */
  private turns = 0;
  private turn: Promise<void> | undefined;
  seats = 0;

  override join(room: string, member: RoomMember): RoomSeat {
    const own = this.standingOf(member);
    const members = this.rooms.get(room) ?? new Set();
    this.rooms.set(room, members);
    members.add(own);
    this.seats++;
    return {
      ready: () => (this.isAnyCongested(members, own) ? this.nextTurn() : undefined),
      send: (framed) => {
        for (const other of members) if (other !== own) this.deliver(framed, other);
      },
      leave: () => {
        if (!members.delete(own)) return;
        this.seats--;
        if (members.size === 0) this.rooms.delete(room);
      },
    };
  }

  private standingOf(member: RoomMember): Standing {
    let standing = this.standings.get(member);
    if (!standing) this.standings.set(member, (standing = { member, congestedSince: 0 }));
    return standing;
  }

  private deliver(framed: Buffer, to: Standing): void {
    if (!to.member.isCongested) to.congestedSince = this.turns;
    to.member.receive(framed);
  }

  private isAnyCongested(members: ReadonlySet<Standing>, own: Standing): boolean {
    for (const other of members) {
      if (other === own || !other.member.isCongested) continue;
      if (this.turns - other.congestedSince < PATIENCE_TURNS) return true;
    }
    return false;
  }

  /** Senders that wait share this promise, so they go on one after the other, and each asks again after those before it have sent. */
  private nextTurn(): Promise<void> {
    return (this.turn ??= nextTurn().then(() => {
      this.turns++;
      this.turn = undefined;
    }));
  }
}
