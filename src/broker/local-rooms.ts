import { setTimeout as sleep } from 'node:timers/promises';
import { type RoomMember, Rooms, type RoomSeat } from './rooms.js';

/** While senders wait, the rooms look at their members this often (milliseconds). */
const LOOK_INTERVAL = 2;
/**
 * The most looks for which a congested member holds senders back, and for which one message waits for all members together:
 * 250 ms. A member that reads catches up in that time, also one of many on a connection whose send limit is still small.
 */
const PATIENCE_LOOKS = 125;

/**
 * The most looks that a message from elsewhere waits. A member that reads nothing uses up the first half; the second one is for those
 * that read.
 */
const LATE_LOOKS = 2 * PATIENCE_LOOKS;

/** A member and its congestion. Its seats in all rooms share one state, because the member has one queue. */
export interface MemberState {
  readonly member: RoomMember;
  /** The number of the look before the last message that came while the member was not congested. */
  uncongestedAt: number;
}

/** A message from elsewhere that waits for members. */
interface LateMessage {
  readonly framed: Buffer;
  readonly sender: MemberState | undefined;
  /** The number of the look before it came. */
  readonly cameAt: number;
}

/** The members of a room. */
class Room extends Set<MemberState> {
  /**
   * The member that was last found to hold senders back. Thousands of senders may wait in a room of thousands, and ask at each look:
   * as long as this one is congested, none of them has to look at all members.
   */
  holder: MemberState | undefined;
}

/** Rooms whose members are all in this process. */
export class LocalRooms extends Rooms {
  protected readonly rooms = new Map<string, Room>();
  private readonly states = new WeakMap<RoomMember, MemberState>();
  /** Counts the looks while some sender waited. Patience is measured in these. */
  private looks = 0;
  private look: Promise<void> | undefined;
  /** The messages from elsewhere that wait, in order, by their rooms. */
  private readonly late = new Map<string, LateMessage[]>();
  seats = 0;

  override join(room: string, member: RoomMember): RoomSeat {
    const own = this.stateOf(member);
    const members = this.rooms.get(room) ?? new Room();
    this.rooms.set(room, members);
    members.add(own);
    this.seats++;
    return {
      send: (framed) => {
        if (this.isAnyCongested(members, own)) return this.sendLater(room, framed, members, own);
        return this.carry(room, framed, own);
      },
      leave: () => {
        if (!members.delete(own)) return;
        if (members.holder === own) members.holder = undefined;
        this.seats--;
        if (members.size === 0) this.rooms.delete(room);
      },
    };
  }

  override get open(): number {
    return this.rooms.size;
  }

  override isOpen(room: string): boolean {
    return this.rooms.has(room);
  }

  private stateOf(member: RoomMember): MemberState {
    let state = this.states.get(member);
    if (!state) this.states.set(member, (state = { member, uncongestedAt: 0 }));
    return state;
  }

  /** Brings a message to the other members of its sender's room. */
  protected carry(room: string, framed: Buffer, own: MemberState): Promise<void> | undefined {
    this.deliver(room, framed, own);
    return undefined;
  }

  /** Hands a message to all members in this process but its sender. */
  protected deliver(room: string, framed: Buffer, sender: MemberState | undefined): void {
    const members = this.rooms.get(room);
    if (!members) return;
    for (const member of members) if (member !== sender) this.deliverTo(member, framed);
  }

  /**
   * Delivers a message that came from elsewhere, where its sender does not know of congested members here. So it waits for them
   * itself, and what comes for its room meanwhile waits behind it. Many come in one turn where this process stood still.
   */
  protected deliverPatiently(room: string, framed: Buffer, sender: MemberState | undefined): void {
    const message = { framed, sender, cameAt: this.looks };
    const late = this.late.get(room);
    if (late) late.push(message);
    else if (this.isHeldBack(room, message)) void this.deliverLater(room, message);
    else this.deliver(room, framed, sender);
  }

  private async deliverLater(room: string, first: LateMessage): Promise<void> {
    const behind: LateMessage[] = [];
    this.late.set(room, behind);
    for (let next: LateMessage | undefined = first; next; next = behind.shift()) {
      while (this.isHeldBack(room, next)) await this.nextLook();
      this.deliver(room, next.framed, next.sender);
    }
    this.late.delete(room);
  }

  private isHeldBack(room: string, { sender, cameAt }: LateMessage): boolean {
    const members = this.rooms.get(room);
    if (!members || this.looks - cameAt >= LATE_LOOKS) return false;
    return this.isAnyCongested(members, sender);
  }

  private deliverTo(to: MemberState, framed: Buffer): void {
    if (!to.member.isCongested) to.uncongestedAt = this.looks;
    to.member.receive(framed);
  }

  private async sendLater(
    room: string,
    framed: Buffer,
    members: Room,
    own: MemberState,
  ): Promise<void> {
    for (let looks = 0; looks < PATIENCE_LOOKS && this.isAnyCongested(members, own); looks++) {
      await this.nextLook();
      if (!members.has(own)) return;
    }
    await this.carry(room, framed, own);
  }

  /** True while another member holds senders back. */
  private isAnyCongested(members: Room, own: MemberState | undefined): boolean {
    const { holder } = members;
    if (holder && holder !== own && this.holdsBack(holder)) return true;
    for (const other of members) {
      if (other === own || !this.holdsBack(other)) continue;
      members.holder = other;
      return true;
    }
    members.holder = undefined;
    return false;
  }

  /** True while a member is congested and has not held senders back for PATIENCE_LOOKS. */
  private holdsBack({ member, uncongestedAt }: MemberState): boolean {
    return member.isCongested && this.looks - uncongestedAt < PATIENCE_LOOKS;
  }

  /**
   * Resolves at the next look. Senders that wait share the promise, so they go on one after the other,
   * and each looks at the members after those before it have sent.
   */
  private nextLook(): Promise<void> {
    return (this.look ??= sleep(LOOK_INTERVAL).then(() => {
      this.looks++;
      this.look = undefined;
    }));
  }
}
