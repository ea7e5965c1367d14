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
    const bell = new LocalBell(topic, this.remove);
    bells.add(bell);
    this.subscriptions++;
    return bell;
  }

  private readonly remove = (topic: string, bell: LocalBell): void => {
    const bells = this.bells.get(topic);
    if (!bells?.delete(bell)) return;
    this.subscriptions--;
    if (bells.size === 0) this.bells.delete(topic);
  };

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
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly topic: string,
    private readonly remove: (topic: string, bell: LocalBell) => void,
  ) {}

  clear(): void {
    this.rung = false;
  }

  // Not async: what waits is most of what an idle watch holds.
  wait(milliseconds: number): Promise<boolean> {
    if (this.rung) return Promise.resolve(true);
    return new Promise((resolve) => {
      this.wake = resolve;
      if (milliseconds > 0) this.timer = setTimeout(() => this.end(false), milliseconds);
    });
  }

  ring(): void {
    this.rung = true;
    this.end(true);
  }

  silence(): void {
    this.remove(this.topic, this);
  }

  private end(rung: boolean): void {
    if (!this.wake) return;
    const { wake } = this;
    this.wake = undefined;
    clearTimeout(this.timer);
    wake(rung);
  }
}
