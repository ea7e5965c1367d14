import type { OnApplicationShutdown } from '@nestjs/common';
import { type Bell, Broker, type RoomMember, type RoomSeat } from './broker.js';

/** Every watch looks at the log this often (milliseconds), rung or not: rule 1's slow poll. */
const POLL_INTERVAL = 5_000;

/** Bells and rooms within this process. */
export class LocalBroker extends Broker implements OnApplicationShutdown {
  private readonly bells = new Map<string, Set<LocalBell>>();
  private readonly poll = setInterval(() => this.ring(this.bells.keys()), POLL_INTERVAL).unref();
  private readonly rooms = new Map<string, Set<RoomMember>>();
  subscriptions = 0;
  seats = 0;

  override ring(topics: Iterable<string>): void {
    for (const topic of topics) {
      const bells = this.bells.get(topic);
      if (bells) for (const bell of bells) bell.ring();
    }
  }

  override subscribe(topic: string): Bell {
    let bells = this.bells.get(topic);
    if (!bells) this.bells.set(topic, (bells = new Set()));
    const bell = new LocalBell((silenced) => {
      if (!bells.delete(silenced)) return;
      this.subscriptions--;
      if (bells.size === 0) this.bells.delete(topic);
    });
    bells.add(bell);
    this.subscriptions++;
    return bell;
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

class LocalBell implements Bell {
  private rung = false;
  private wake: ((rung: boolean) => void) | undefined;

  constructor(private readonly remove: (bell: LocalBell) => void) {}

  clear(): void {
    this.rung = false;
  }

  async wait(milliseconds: number): Promise<boolean> {
    if (this.rung) return true;
    const timer = milliseconds > 0 ? setTimeout(() => this.wake?.(false), milliseconds) : undefined;
    try {
      return await new Promise<boolean>((resolve) => (this.wake = resolve));
    } finally {
      clearTimeout(timer);
      this.wake = undefined;
    }
  }

  ring(): void {
    this.rung = true;
    this.wake?.(true);
  }

  silence(): void {
    this.remove(this);
  }
}
