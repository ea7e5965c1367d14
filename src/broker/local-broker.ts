import type { OnApplicationShutdown } from '@nestjs/common';
import { Broker, type Follower, type RoomMember, type RoomSeat } from './broker.js';

/** Every watch looks at the log this often (milliseconds), rung or not: rule 1's slow poll. */
const POLL_INTERVAL = 5_000;

/** Bells and rooms within this process. */
export class LocalBroker extends Broker implements OnApplicationShutdown {
  private readonly followers = new Map<string, Set<Follower>>();
  private readonly poll = setInterval(
    () => this.ring(this.followers.keys()),
    POLL_INTERVAL,
  ).unref();
  private readonly rooms = new Map<string, Set<RoomMember>>();
  subscriptions = 0;
  seats = 0;

  override ring(topics: Iterable<string>): void {
    for (const topic of topics) {
      const followers = this.followers.get(topic);
      if (followers) for (const follower of followers) follower.hearBell();
    }
  }

  override subscribe(topic: string, follower: Follower): void {
    let followers = this.followers.get(topic);
    if (!followers) this.followers.set(topic, (followers = new Set()));
    if (!followers.has(follower)) this.subscriptions++;
    followers.add(follower);
  }

  override unsubscribe(topic: string, follower: Follower): void {
    const followers = this.followers.get(topic);
    if (!followers?.delete(follower)) return;
    this.subscriptions--;
    if (followers.size === 0) this.followers.delete(topic);
  }

  override join(room: string, member: RoomMember): RoomSeat {
    let members = this.rooms.get(room);
    if (!members) this.rooms.set(room, (members = new Set()));
    if (!members.has(member)) this.seats++;
    members.add(member);
    const others = members;
    return {
      say: (framed) => {
        for (const other of others) if (other !== member) other.hear(framed);
      },
      get isOthersBehind() {
        for (const other of others) if (other !== member && other.isBehind) return true;
        return false;
      },
      leave: () => {
        if (!others.delete(member)) return;
        this.seats--;
        if (others.size === 0) this.rooms.delete(room);
      },
    };
  }

  onApplicationShutdown(): void {
    clearInterval(this.poll);
  }
}
