import { setTimeout as sleep } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import { beforeEach, describe, expect, it } from 'vitest';
import { LocalRooms } from '../../src/broker/local-rooms.js';
import type { RoomMember } from '../../src/broker/rooms.js';
import { until } from '../support/wait.js';

/** A member that is congested with more than two messages in its queue. */
class Member implements RoomMember {
  readonly queue: string[] = [];

  get isCongested(): boolean {
    return this.queue.length > 2;
  }

  receive(framed: Buffer): void {
    this.queue.push(String(framed));
  }

  onInterruption(): void {}
}

/** Far longer (milliseconds) than a room holds a sender back. */
const LONG = 20_000;

let rooms: LocalRooms;
let slow: Member;
let fast: Member;

beforeEach(() => {
  rooms = new LocalRooms();
  slow = new Member();
  fast = new Member();
});

/** A seat whose member reads at once, and a `send` that notes which messages the room has taken. */
function sender() {
  const seat = rooms.join('r', { isCongested: false, receive: () => {}, onInterruption: () => {} });
  const taken: string[] = [];
  const send = (text: string): Promise<void> | undefined => {
    const sending = seat.send(Buffer.from(text));
    if (!sending) taken.push(text);
    return sending?.then(() => void taken.push(text));
  };
  return { seat, taken, send };
}

describe('a local room', () => {
  it('takes a message at once while no member is congested', () => {
    rooms.join('r', slow);
    rooms.join('r', fast);
    const { send } = sender();
    expect(['a', 'b', 'c'].map(send)).toEqual([undefined, undefined, undefined]);
    expect([slow.queue, fast.queue]).toEqual([
      ['a', 'b', 'c'],
      ['a', 'b', 'c'],
    ]);
  });

  it('holds a sender back until a congested member has read', async () => {
    rooms.join('r', slow);
    rooms.join('r', fast);
    const { send, taken } = sender();
    for (const text of ['a', 'b', 'c']) void send(text);
    fast.queue.length = 0;
    const sending = send('d');
    await turns(3);
    expect([taken.length, slow.queue.length, fast.queue]).toEqual([3, 3, []]);
    slow.queue.length = 0;
    await sending;
    expect([slow.queue, fast.queue]).toEqual([['d'], ['d']]);
  });

  it('holds nobody back for long by a member that reads nothing, and then not at all', async () => {
    rooms.join('r', slow);
    const { send } = sender();
    for (const text of ['a', 'b', 'c']) void send(text);
    const message = { isTaken: false };
    void send('d')!.then(() => (message.isTaken = true));
    await until(() => message.isTaken, 'the message is taken', LONG);
    expect(send('e')).toBeUndefined();
    expect(slow.queue).toEqual(['a', 'b', 'c', 'd', 'e']);
    // It reads and becomes congested again, so it is given time again.
    slow.queue.length = 0;
    for (const text of ['f', 'g', 'h']) void send(text);
    expect(send('i')).toBeInstanceOf(Promise);
  });

  it('holds no message back for long, even where a member becomes congested over and over', async () => {
    rooms.join('r', slow);
    rooms.join('hall', slow);
    const filler = rooms.join('hall', {
      isCongested: false,
      receive: () => {},
      onInterruption: () => {},
    });
    const { send, taken } = sender();
    const fill = (): void => {
      slow.queue.length = 0;
      for (const text of ['a', 'b', 'c']) void filler.send(Buffer.from(text));
    };
    fill();
    void send('last');
    for (const end = performance.now() + LONG; taken.length === 0;) {
      expect(performance.now()).toBeLessThan(end);
      fill();
      await turns(1);
    }
  });

  it('gives time to a member that becomes congested by messages of several rooms', () => {
    rooms.join('r', slow);
    rooms.join('hall', slow);
    const other = rooms.join('hall', new Member());
    const { send } = sender();
    void send('a');
    void other.send(Buffer.from('b'));
    void send('c');
    expect(other.send(Buffer.from('d'))).toBeInstanceOf(Promise);
    expect(send('e')).toBeInstanceOf(Promise);
  });

  it('lets senders that wait go on one after the other, so that a member is congested by one of them', async () => {
    rooms.join('r', slow);
    const { send } = sender();
    const others = Array.from({ length: 5 }, sender);
    for (const text of ['a', 'b', 'c']) void send(text);
    others.forEach((other, i) => void other.send(String(i)));
    slow.queue.splice(0, 1);
    await until(() => slow.queue.length > 2, 'the first of them');
    await sleep(20);
    expect(slow.queue).toEqual(['b', 'c', '0']);
  });

  it('holds nothing of a slow member that has left', async () => {
    class Slow extends Member {}
    const { send } = sender();
    const joinAndLeave = async (): Promise<void> => {
      const seat = rooms.join('r', new Slow());
      for (const text of ['a', 'b', 'c']) await send(text);
      // It waits for the slow member as long as a room holds a sender back.
      await send('d');
      seat.leave();
    };
    await joinAndLeave();
    expect(queryObjects(Slow, { format: 'count' })).toBe(0);
    expect(rooms.isOpen('r')).toBe(true);
  });

  it('has many senders look at the one member that holds them back, and not at all members each', async () => {
    const SENDERS = 100;
    let asked = 0;
    const member = (isCongested: boolean): RoomMember => ({
      get isCongested() {
        asked++;
        return isCongested;
      },
      receive: () => {},
      onInterruption: () => {},
    });
    const seats = Array.from({ length: SENDERS }, () => rooms.join('r', member(false)));
    rooms.join('r', member(true));
    await Promise.all(seats.map(async (seat) => seat.send(Buffer.from('a'))));
    // The first sender looks at all members before it waits. Each looks at the one at most twice for each of the 125 looks, and at all
    // members, for its message, once that one holds nobody back any more.
    expect(asked).toBeLessThan(SENDERS * 2 * 130 + 3 * SENDERS * SENDERS);
  });

  it('holds nobody back by a congested member that has left, and is in another room', () => {
    const seat = rooms.join('r', slow);
    rooms.join('hall', slow);
    const { send } = sender();
    for (const text of ['a', 'b', 'c']) void send(text);
    expect(send('d')).toBeInstanceOf(Promise);
    seat.leave();
    expect(send('e')).toBeUndefined();
  });

  it('does not have a congested member wait for itself', () => {
    const seat = rooms.join('r', slow);
    const { send } = sender();
    for (const text of ['a', 'b', 'c']) void send(text);
    expect(send('d')).toBeInstanceOf(Promise);
    expect(seat.send(Buffer.from('e'))).toBeUndefined();
  });

  it('drops a message whose sender leaves while it waits', async () => {
    rooms.join('r', slow);
    const { seat, send } = sender();
    for (const text of ['a', 'b', 'c']) void send(text);
    const sending = send('d');
    seat.leave();
    slow.queue.length = 0;
    await sending;
    await sleep(20);
    expect(slow.queue).toEqual([]);
  });

  it('counts seats, and is gone when the last member has left', () => {
    const seats = [rooms.join('r', slow), rooms.join('r', fast), rooms.join('hall', slow)];
    expect(rooms.seats).toBe(3);
    for (const seat of seats) {
      seat.leave();
      seat.leave();
    }
    expect(rooms.seats).toBe(0);
  });
});

describe('messages that come from elsewhere, many in one turn', () => {
  class Receiving extends LocalRooms {
    come(...texts: string[]): void {
      for (const text of texts) this.deliverPatiently('r', Buffer.from(text), undefined);
    }
  }
  const texts = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

  it('wait for a congested member, in their order, and what comes later waits behind them', async () => {
    const receiving = new Receiving();
    receiving.join('r', slow);
    receiving.come(...texts);
    expect(slow.queue).toEqual(['a', 'b', 'c']);
    const heard = slow.queue.splice(0);
    receiving.come('i');
    expect(slow.queue).toEqual([]);
    await until(() => {
      heard.push(...slow.queue.splice(0));
      return heard.length === 9;
    }, 'all of them');
    expect(heard).toEqual([...texts, 'i']);
  });

  it('do not wait for long for a member that reads nothing, and leave the others their time', async () => {
    const receiving = new Receiving();
    receiving.join('r', slow);
    receiving.join('r', fast);
    receiving.come(...texts);
    let most = 0;
    const heard: string[] = [];
    await until(
      () => {
        most = Math.max(most, fast.queue.length);
        heard.push(...fast.queue.splice(0));
        return heard.length === texts.length;
      },
      'all of them',
      LONG,
    );
    expect([heard, most, slow.queue]).toEqual([texts, 3, texts]);
  });
});

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}
