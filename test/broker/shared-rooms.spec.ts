import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type RoomMember, RoomInterruptedError, type RoomSeat } from '../../src/broker/rooms.js';
import { LEADER_LAG, type StreamApi, UnansweredError } from '../../src/nats/stream-api.js';
import { SharedRooms } from '../../src/broker/shared-rooms.js';
import { ANYONE } from '../../src/feed/caller.js';
import { Chats } from '../../src/feed/chat.js';
import { FRAME_HEADER_BYTES, type Frames } from '../../src/wire/frames.js';
import { NATS_SERVER, NatsServer } from '../support/nats.js';
import { until, upToThrice, within } from '../support/wait.js';
import { decodeChat, encodeChat, framed as frame, received, unframed } from '../wire/events.js';

const SILENT = { info: () => {}, warn: () => {}, error: () => {} };

class Member implements RoomMember {
  readonly got: string[] = [];
  interruptions = 0;
  readonly isCongested = false;

  receive(framed: Buffer): void {
    this.got.push(String(framed.subarray(FRAME_HEADER_BYTES)));
  }

  onInterruption(): void {
    this.interruptions++;
  }
}

const saying = (text: string): Buffer => frame(Buffer.from(text));

/** Sends one message from each seat, at the same time. */
async function sendAll(messages: readonly (readonly [RoomSeat, string])[]): Promise<void> {
  await Promise.all(messages.map(async ([seat, text]) => seat.send(saying(text))));
}

/** Waits for messages to members. @throws RoomInterruptedError if members are told that messages may be lost */
async function untilHeard(
  members: readonly Member[],
  holds: () => boolean,
  what: string,
): Promise<void> {
  await until(() => {
    if (members.some(({ interruptions }) => interruptions > 0))
      throw new RoomInterruptedError('the members were told so');
    return holds();
  }, what);
}

/** Runs a scenario whose rooms are not interrupted. They are, rightly, where NATS or this process stands still for 3 s. */
async function uninterrupted(scenario: () => Promise<void>): Promise<void> {
  const outcome = async (): Promise<unknown> => {
    try {
      await scenario();
      return 'done';
    } catch (error) {
      if (error instanceof RoomInterruptedError) return error;
      throw error;
    }
  };
  expect(await upToThrice(outcome, (found) => found === 'done')).toBe('done');
}

describe.skipIf(!NATS_SERVER)('rooms over NATS', () => {
  let server: NatsServer;
  let streams = 0;
  beforeAll(async () => void ([server] = await NatsServer.start(1, { jetstream: '' })));
  afterAll(() => server.remove());

  /** Opens the rooms of several processes. */
  async function open(processes: number, on = server): Promise<SharedRooms[]> {
    const stream = `R${streams++}`;
    const nats = {
      servers: [on.url],
      credentials: undefined,
      tlsCa: undefined,
      tlsCert: undefined,
      tlsKey: undefined,
      stream,
      replicas: 1,
    };
    const rooms = await Promise.all(
      Array.from({ length: processes }, () => SharedRooms.open(nats, SILENT)),
    );
    onTestFinished(async () => void (await Promise.all(rooms.map((each) => each.close()))));
    return rooms;
  }

  it('all members, whichever process they are in, get the messages of the others in one order', async () => {
    await uninterrupted(async () => {
      const processes = await open(3);
      const members = processes.flatMap((rooms) =>
        [0, 1].map(() => {
          const member = new Member();
          return { member, seat: rooms.join('r', member) };
        }),
      );
      const listeners = processes.map((rooms) => {
        const listener = new Member();
        rooms.join('r', listener);
        return listener;
      });
      const other = new Member();
      processes[0].join('another', other);
      const each = 50;
      await Promise.all(
        members.map(async ({ seat }, m) => {
          for (let i = 0; i < each; i++) await seat.send(saying(`${m}-${i}`));
        }),
      );
      const count = each * members.length;
      await untilHeard(
        listeners,
        () => listeners.every(({ got }) => got.length === count),
        'all messages',
      );
      const [{ got: order }] = listeners;
      for (const { got } of listeners) expect(got).toEqual(order);
      for (const [m, { member }] of members.entries()) {
        const isOwn = (text: string): boolean => text.startsWith(`${m}-`);
        expect(member.got).toEqual(order.filter((text) => !isOwn(text)));
        expect(order.filter(isOwn)).toEqual(Array.from({ length: each }, (_, i) => `${m}-${i}`));
      }
      expect(other.got).toEqual([]);
    });
  });

  it('a thousand members on three replicas get one order, and ten thousand rooms their own messages', async () => {
    await uninterrupted(async () => {
      const processes = await open(3);
      const members = Array.from({ length: 999 }, (_, i) => {
        const member = new Member();
        return { member, seat: processes[i % 3].join('large', member) };
      });
      const listener = new Member();
      processes[0].join('large', listener);
      await sendAll(members.slice(0, 60).map(({ seat }, i) => [seat, `${i}`]));
      const heard = members.map(({ member }) => member);
      await untilHeard(heard, () => heard.every(({ got }) => got.length >= 59), 'all messages');
      for (const [i, { member }] of members.entries())
        expect(member.got).toEqual(listener.got.filter((text) => text !== `${i}`));

      const rooms = Array.from({ length: 10_000 }, (_, i) => {
        const member = new Member();
        processes[i % 3].join(`room.${i}`, member);
        return { member, seat: processes[(i + 1) % 3].join(`room.${i}`, new Member()) };
      });
      for (let i = 0; i < rooms.length; i += 500)
        await sendAll(rooms.slice(i, i + 500).map(({ seat }, k) => [seat, `${i + k}`]));
      await untilHeard(
        heard,
        () => rooms.every(({ member }) => member.got.length === 1),
        'a message in each',
      );
      for (const [i, { member }] of rooms.entries()) expect(member.got).toEqual([`${i}`]);
    });
  });

  it('a member that has left gets nothing, and one that joins gets what is sent from then on', async () => {
    const [one, two] = await open(2);
    const sender = one.join('r', new Member());
    const [leaver, late] = [new Member(), new Member()];
    const seat = two.join('r', leaver);
    await sender.send(saying('a'));
    await until(() => leaver.got.length === 1, 'the first message');
    seat.leave();
    two.join('r', late);
    await sender.send(saying('b'));
    await until(() => late.got.length === 1, 'the second message');
    expect([leaver.got, late.got]).toEqual([['a'], ['b']]);
    expect([one.seats, two.seats]).toEqual([1, 1]);
  });

  it('a chat that reads gets all that comes at once, such as after its replica stood still', async () => {
    const [rooms] = await open(1);
    const ends: Error[] = [];
    const end = (reason: Error) => void ends.push(reason);
    const call = { notes: {}, events: 0, bytes: 0, abort: end, abortOnceUnread: end };
    async function* joining() {
      yield received(encodeChat({ room: 'r' }));
      await new Promise(() => {});
    }
    const chat = new Chats(rooms).chat(joining(), ANYONE, call);
    const heard: string[] = [];
    chat.open(() => {
      for (let taken; (taken = chat.take() as Frames | undefined);)
        heard.push(...unframed(taken.bytes).map((message) => decodeChat(message).text));
    });
    await until(() => rooms.seats === 1, 'its seat');
    const stream = rooms as unknown as {
      api: StreamApi;
      onMessage(sequence: number, subject: string, data: Buffer): void;
    };
    const texts = Array.from({ length: 2_000 }, (_, i) => String(i));
    for (const [i, text] of texts.entries()) {
      const data = Buffer.concat([Buffer.alloc(12), frame(encodeChat({ room: 'r', text }))]);
      stream.onMessage(i + 1, `${stream.api.stream}.r`, data);
    }
    await until(() => heard.length >= texts.length || ends.length > 0, 'all messages');
    expect(ends[0]).toBeUndefined();
    expect(heard).toEqual(texts);
    await chat.close();
  });

  it('what somebody else has put into the stream is not handed to members', async () => {
    const [rooms] = await open(1);
    const member = new Member();
    rooms.join('r', member);
    const seat = rooms.join('r', new Member());
    const connection = await server.connect();
    const whole = Buffer.concat([Buffer.alloc(12), saying('of somebody else')]);
    for (const data of ['', 'short', 'a text that is no message of Feed', whole.subarray(0, -1)])
      await connection.request(`R${streams - 1}_ROOMS.r`, data, { timeout: 30_000 });
    await connection.close();
    await seat.send(saying('a'));
    await until(() => member.got.length > 0, 'the message');
    expect([member.got, member.interruptions]).toEqual([['a'], 0]);
  });

  it('members are told when the stream is lost, and rooms go on with a new one', async () => {
    const processes = await open(2);
    const members = processes.map((rooms) => {
      const member = new Member();
      return { member, seat: rooms.join('r', member) };
    });
    const connection = await server.connect();
    await connection.request(`$JS.API.STREAM.DELETE.R${streams - 1}_ROOMS`, '', {
      timeout: 30_000,
    });
    await connection.close();
    await until(() => members.every(({ member }) => member.interruptions > 0), 'a word to all');
    await until(async () => {
      try {
        await members[0].seat.send(saying('again'));
        return true;
      } catch {
        return false;
      }
    }, 'a message that is carried');
    await until(() => members[1].member.got.includes('again'), 'the message');
  });

  /** Two replicas and a member of the second one, which has got two messages. `lagOnce` has the leader's next answer lack the second. */
  async function afterTwoMessages() {
    const [one, two] = await open(2);
    const sender = one.join('r', new Member());
    const member = new Member();
    two.join('r', member);
    for (const text of ['a', 'b']) await sender.send(saying(text));
    await until(() => member.got.length === 2, 'the messages');
    const { api, tail } = two as unknown as {
      api: StreamApi;
      tail: { follow(): Promise<void> };
    };
    const info = api.info.bind(api);
    const lagOnce = (): void => {
      api.info = async (subjects) => {
        api.info = info;
        const found = await info(subjects);
        return { ...found, state: { ...found.state, last_seq: 1 } };
      };
    };
    return { two, sender, member, api, tail, lagOnce };
  }

  it('members are told nothing, and get nothing twice, where the leader is a message behind a new consumer', async () => {
    const { two, sender, member, tail, lagOnce } = await afterTwoMessages();
    lagOnce();
    await tail.follow();
    // A member that joins now gets none of the earlier messages.
    const late = new Member();
    two.join('r', late);
    await sender.send(saying('c'));
    await until(() => late.got.length > 0, 'the next message');
    expect([member.got, late.got, member.interruptions]).toEqual([['a', 'b', 'c'], ['c'], 0]);
  });

  it('members get nothing twice where the leader is a message behind after a long silence', async () => {
    const { two, sender, member, api, tail, lagOnce } = await afterTwoMessages();
    api.info = async () => {
      lagOnce();
      await sleep(LEADER_LAG);
      throw new UnansweredError('no answer');
    };
    void tail.follow();
    // The members are told of the silence. One that joins again gets none of the earlier messages.
    await until(() => member.interruptions > 0, 'a word to the member');
    const again = new Member();
    two.join('r', again);
    await sender.send(saying('c'));
    await until(() => again.got.length > 0, 'the next message');
    expect([again.got, again.interruptions]).toEqual([['c'], 0]);
  });

  it('cut off from NATS, members are told, and a sender is refused', async () => {
    const [cut] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => cut.remove());
    const [rooms] = await open(1, cut);
    const [member, sender] = [new Member(), new Member()];
    rooms.join('r', member);
    const seat = rooms.join('r', sender);
    cut.signal('SIGSTOP');
    onTestFinished(() => cut.signal('SIGCONT'));
    // The signal comes a little later.
    const sendUntilRefused = async (): Promise<void> => {
      for (;;) await seat.send(saying('a'));
    };
    await expect(within(sendUntilRefused(), 'a refusal')).rejects.toThrow(RoomInterruptedError);
    await until(() => member.interruptions > 0, 'a word to the other member');
  });
});
