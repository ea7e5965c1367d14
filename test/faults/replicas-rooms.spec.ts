import type { ServiceError } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ChatMessage } from '../../src/gen/feed/v1/feed.js';
import type { FeedClient } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER } from '../support/nats.js';
import type { ServiceProcess } from '../support/service.js';
import { until } from '../support/wait.js';
import { clusterForTests, startReplicas } from './replicas.js';

/** How many members the large room has, on all replicas together. */
const MEMBERS = Number(process.env.FEED_TEST_NATS_MEMBERS ?? 90);
/** How many small rooms there are. Each has a member on each replica. */
const ROOMS = Number(process.env.FEED_TEST_NATS_ROOMS ?? 300);
const REPLICAS = 3;
/** A client has this many chats, all on one connection. */
const CHATS_OF_A_CLIENT = 100;

/** A chat that keeps what it gets. */
class Member {
  /** The texts of its rooms' messages, each behind the name of its room. */
  readonly got: string[] = [];
  private echoes = 0;
  private readonly call: ReturnType<FeedClient['Chat']>;
  private error: ServiceError | undefined;

  constructor(client: FeedClient) {
    this.call = client.Chat();
    this.call.on('data', ({ room, text }: ChatMessage) => {
      if (room === '') this.echoes++;
      else this.got.push(`${room} ${text}`);
    });
    this.call.on('error', (error: ServiceError) => (this.error = error));
    onTestFinished(() => this.call.cancel());
  }

  say(room: string, text: string): void {
    this.call.write({ room, text });
  }

  /** Joins rooms. Resolves once the server has answered a message that came after that. */
  async join(...rooms: readonly string[]): Promise<void> {
    for (const room of rooms) this.say(room, '');
    const before = this.echoes;
    this.call.write({ text: 'joined?' });
    await this.until(() => this.echoes > before, 'the echo');
  }

  /** Resolves once `count` messages have come. Throws if the chat ends before. */
  async has(count: number): Promise<void> {
    await this.until(
      () => this.got.length >= count,
      () => `${count} messages; ${this.got.length} have come`,
    );
  }

  private async until(holds: () => boolean, what: string | (() => string)): Promise<void> {
    await until(() => this.error !== undefined || holds(), what, 60_000);
    if (this.error) throw this.error;
  }
}

describe.skipIf(!NATS_SERVER)('chat rooms of three replicas', () => {
  const servers = clusterForTests();

  /** Opens chats, in turns on the replicas: the chat i is on the replica i % REPLICAS. */
  function openChats(replicas: readonly ServiceProcess[], count: number): Member[] {
    const clients = new Map<string, FeedClient>();
    return Array.from({ length: count }, (_, i) => {
      const key = `${i % REPLICAS} ${Math.floor(i / (REPLICAS * CHATS_OF_A_CLIENT))}`;
      const client = clients.get(key) ?? replicas[i % REPLICAS].connect();
      clients.set(key, client);
      return new Member(client);
    });
  }

  test(`${MEMBERS} members of one room get its messages in one order`, async () => {
    const replicas = await startReplicas(REPLICAS, jetstreamSettings(servers()));
    const members = openChats(replicas, MEMBERS);
    const [listener] = openChats(replicas, 1);
    await Promise.all([...members, listener].map((member) => member.join('large')));
    const senders = members.slice(0, 30);
    const rounds = 5;
    const began = performance.now();
    for (let round = 0; round < rounds; round++) {
      // All at the same time, on all replicas. A member's queue has room for one round.
      for (const [i, sender] of senders.entries()) sender.say('large', `${i}-${round}`);
      await listener.has((round + 1) * senders.length);
      await Promise.all(
        members.map((member, i) =>
          member.has((round + 1) * (senders.length - (i < senders.length ? 1 : 0))),
        ),
      );
    }
    const took = performance.now() - began;
    const order = listener.got;
    expect(order.toSorted()).toEqual(
      senders
        .flatMap((_, i) => Array.from({ length: rounds }, (_each, round) => `large ${i}-${round}`))
        .toSorted(),
    );
    // A member does not get its own messages.
    for (const [i, { got }] of members.entries())
      expect(got).toEqual(order.filter((text) => !text.startsWith(`large ${i}-`)));
    console.log(
      `${order.length} messages to ${MEMBERS} members in one order, ${Math.round(took)} ms`,
    );
  }, 180_000);

  test(`${ROOMS} rooms each have their own messages, on all replicas`, async () => {
    const replicas = await startReplicas(REPLICAS, jetstreamSettings(servers()));
    const seats = 10; // chats on each replica, which share the rooms
    const chats = openChats(replicas, REPLICAS * seats);
    const rooms = Array.from({ length: ROOMS }, (_, i) => `room.${i}`);
    /** Returns a room's members: one on each replica. */
    const membersOf = (room: number): Member[] => {
      const first = REPLICAS * (room % seats);
      return chats.slice(first, first + REPLICAS);
    };
    await Promise.all(
      chats.map((chat) => chat.join(...rooms.filter((_, i) => membersOf(i).includes(chat)))),
    );
    const wanted = new Map(chats.map((chat) => [chat, [] as string[]]));
    const began = performance.now();
    const atOnce = 300;
    for (let from = 0; from < ROOMS; from += atOnce) {
      for (let i = from; i < Math.min(ROOMS, from + atOnce); i++) {
        const [sender, ...others] = [0, 1, 2].map((k) => membersOf(i)[(i + k) % REPLICAS]);
        sender.say(rooms[i], `${i}`);
        for (const other of others) wanted.get(other)!.push(`${rooms[i]} ${i}`);
      }
      await Promise.all(chats.map((chat) => chat.has(wanted.get(chat)!.length)));
    }
    const took = performance.now() - began;
    for (const [chat, texts] of wanted) expect(chat.got.toSorted()).toEqual(texts.toSorted());
    console.log(`a message to two of three members in ${ROOMS} rooms, ${Math.round(took)} ms`);
  }, 180_000);
});
