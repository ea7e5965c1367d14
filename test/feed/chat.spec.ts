import { describe, expect, it } from 'vitest';
import { LocalRooms } from '../../src/broker/local-rooms.js';
import type { RoomSeat } from '../../src/broker/rooms.js';
import { ANYONE } from '../../src/feed/caller.js';
import { type ChatCall, Chats } from '../../src/feed/chat.js';
import { decodeChat, encodeChat, received, unframed } from '../wire/events.js';

// What falls into single turns of the event loop, which no client can time; the rest of chats is test/e2e's.

/** Rooms that note the promises of messages that wait. */
class NotingRooms extends LocalRooms {
  readonly waiting: Promise<void>[] = [];

  override join(...args: Parameters<LocalRooms['join']>): RoomSeat {
    const seat = super.join(...args);
    const send = (framed: Buffer): Promise<void> | undefined => {
      const sending = seat.send(framed);
      if (sending) this.waiting.push(sending);
      return sending;
    };
    return { send, leave: () => seat.leave() };
  }
}

const rooms = new NotingRooms();
const chats = new Chats(rooms);

describe('a chat that ends while it waits for a room', () => {
  it('says nothing more there, and joins no other room', async () => {
    let aborted = 0;
    const call = (): ChatCall => ({
      notes: {},
      events: 0,
      bytes: 0,
      abort: () => aborted++,
      abortOnceUnread: () => aborted++,
    });
    const member = chats.chat(sent([{ room: 'r' }]), ANYONE, call());
    member.open(() => {});
    await turns(1);

    // A member may have 256 messages waiting. With 129 it is congested, so the last of these waits.
    const said = Array.from({ length: 130 }, (_, i) => ({ room: 'r', text: String(i) }));
    const speaker = chats.chat(sent([...said, { room: 'elsewhere' }]), ANYONE, call());
    speaker.open(() => {});
    await turns(2);
    expect([rooms.seats, rooms.waiting.length]).toEqual([2, 1]);
    await speaker.close();
    await rooms.waiting[0];
    await turns(2);

    const { bytes } = (await member.take())!;
    const heard = unframed(bytes).map((message) => decodeChat(message).text);
    expect(heard).toEqual(said.slice(0, 129).map(({ text }) => text));
    expect(rooms.seats).toBe(1);
    await member.close();
    expect([rooms.seats, chats.open, aborted]).toEqual([0, 0, 0]);
  });
});

describe('a chat whose room fails', () => {
  it('leaves its rooms and ends with the error', async () => {
    class FailingRooms extends LocalRooms {
      override join(...args: Parameters<LocalRooms['join']>): RoomSeat {
        const seat = super.join(...args);
        return {
          leave: () => seat.leave(),
          send: () => Promise.reject(new Error('no connection')),
        };
      }
    }
    const failing = new FailingRooms();
    const unread: Error[] = [];
    const chat = new Chats(failing).chat(
      sent([{ text: 'hi' }, { room: 'r', text: 'lost' }]),
      ANYONE,
      {
        notes: {},
        events: 0,
        bytes: 0,
        abort: () => {},
        abortOnceUnread: (reason) => unread.push(reason),
      },
    );
    chat.open(() => {});
    await turns(2);
    expect(failing.seats).toBe(0);
    const { bytes } = (await chat.take())!;
    expect(unframed(bytes).map((message) => decodeChat(message).text)).toEqual(['echo: hi']);
    expect(() => chat.take()).toThrow('no connection');
    expect(unread.map(({ message }) => message)).toEqual(['no connection']);
    await chat.close();
  });
});

/** Messages that came in together, from a client that stays. */
async function* sent(messages: readonly Parameters<typeof encodeChat>[0][]) {
  yield received(...messages.map(encodeChat));
  await new Promise(() => {});
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}
