import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NatsConnection } from '@nats-io/transport-node';
import { connectPatiently, type NatsServers } from '../nats/connect.js';
import type { Notices } from '../telemetry/notices.js';
import { withAdvice } from '../nats/refusal.js';
import { SetupError } from '../nats/setup-error.js';
import { throttled } from '../nats/throttled.js';
import { LEADER_LAG, RefusedError, StreamApi, UnansweredError } from '../nats/stream-api.js';
import { StreamTail } from '../nats/stream-tail.js';
import { isFrame } from '../wire/frames.js';
import { LocalRooms, type MemberState } from './local-rooms.js';
import { roomsStream } from './rooms-stream.js';
import { RoomInterruptedError } from './rooms.js';

/** In front of a message: the random id of the sender's process, and the number of the message in that process. */
const ID_BYTES = 8;
const HEAD_BYTES = ID_BYTES + 4;
const RETRY_INTERVAL = 200;
/** While the stream does not answer or can't be used, the rooms say so at most this often (milliseconds). */
const NOTICE_INTERVAL = 10_000;

/**
 * Rooms whose members are in several processes. All messages go through a stream in the memory of the NATS servers, which
 * gives them one order, and each process delivers what comes of it to its own members. When messages may be lost, the
 * members in this process are told by onInterruption().
 */
export class SharedRooms extends LocalRooms {
  private readonly api: StreamApi;
  private readonly tail: StreamTail;
  private readonly id = randomBytes(ID_BYTES);
  private sent = 0;
  /** The senders of this process's messages that have not come back yet, by their numbers. */
  private readonly senders = new Map<number, MemberState>();
  /** The sequence of the stream's last message that was delivered; undefined until the first answer of the stream. */
  private delivered: number | undefined;
  /** When the stream was made, which tells it from one that was made later. */
  private created: string | undefined;
  private isClosed = false;

  /**
   * Opens the rooms of a stream's replicas. Waits as long as NATS or JetStream does not answer, and says why.
   *
   * @throws SetupError if their stream can't be made or used until an operator changes something
   */
  static async open(
    nats: NatsServers & { readonly stream: string; readonly replicas: number },
    notices: Notices,
  ): Promise<SharedRooms> {
    const connection = await connectPatiently(nats, notices);
    const rooms = new SharedRooms(connection, nats, notices);
    try {
      await rooms.started.promise;
    } catch (error) {
      await rooms.close();
      throw error;
    }
    return rooms;
  }

  /** Resolves when messages come, or rejects with the first refusal. */
  private readonly started = Promise.withResolvers<void>();
  private isStarted = false;
  private readonly warnWaiting: (message: string) => void;
  private readonly logRefused: (message: string) => void;
  private readonly warnForeign: (message: string) => void;

  private constructor(
    connection: NatsConnection,
    private readonly settings: { readonly stream: string; readonly replicas: number },
    notices: Notices,
  ) {
    super();
    const now = performance.now();
    this.warnWaiting = throttled((message) => notices.warn(message), NOTICE_INTERVAL, now);
    this.warnForeign = throttled((message) => notices.warn(message), NOTICE_INTERVAL);
    this.logRefused = throttled((message) => notices.error(message), NOTICE_INTERVAL);
    this.api = new StreamApi(connection, `${settings.stream}_ROOMS`, {
      onConnection: () => {},
      onRefusal: (error) => this.onRefusal(error),
    });
    this.tail = new StreamTail(this.api, {
      onMessage: (sequence, subject, data) => this.onMessage(sequence, subject, data),
      onIdle: (sequence) => {
        if (sequence > (this.delivered ?? Infinity)) this.interrupt(sequence);
      },
      next: () => this.next(),
      onFollowing: () => {
        this.isStarted = true;
        this.started.resolve();
      },
    });
  }

  override async close(): Promise<void> {
    this.isClosed = true;
    await this.tail.stop();
    await this.api.connection.close();
  }

  protected override async carry(room: string, framed: Buffer, own: MemberState): Promise<void> {
    const number = (this.sent = (this.sent + 1) >>> 0);
    const head = Buffer.allocUnsafe(HEAD_BYTES);
    this.id.copy(head);
    head.writeUInt32LE(number, ID_BYTES);
    this.senders.set(number, own);
    try {
      await this.api.append(this.subjectOf(room), Buffer.concat([head, framed]));
    } catch (error) {
      this.senders.delete(number);
      throw new RoomInterruptedError((error as Error).message, { cause: error });
    }
  }

  private subjectOf(room: string): string {
    return `${this.api.stream}.${room}`;
  }

  private onMessage(sequence: number, subject: string, data: Buffer): void {
    if (sequence !== this.delivered! + 1) this.interrupt(sequence - 1);
    this.delivered = sequence;
    let sender: MemberState | undefined;
    if (data.subarray(0, ID_BYTES).equals(this.id)) {
      const number = data.readUInt32LE(ID_BYTES);
      sender = this.senders.get(number);
      this.senders.delete(number);
    }
    const room = subject.slice(this.subjectOf('').length);
    const framed = data.subarray(HEAD_BYTES);
    // Other users of NATS may write to the stream. Members would take anything else for a broken connection.
    if (isFrame(framed)) this.deliverPatiently(room, framed, sender);
    else this.warnForeign(`somebody else has written to ${subject}, which is dropped`);
  }

  /** Messages up to a sequence were removed before they came here. */
  private interrupt(upTo: number): void {
    this.delivered = upTo;
    this.senders.clear();
    const members = new Set<MemberState>();
    for (const room of this.rooms.values()) for (const member of room) members.add(member);
    for (const { member } of members) member.onInterruption();
  }

  /** Returns where the next consumer begins: after what was delivered, if the stream still has that. */
  private async next(): Promise<number | undefined> {
    /** Since when each answer was short of what was delivered. */
    let shortSince: number | undefined;
    for (let attempt = 0; !this.isClosed; attempt++) {
      try {
        const { state, created } = await roomsStream(this.api, this.settings.replicas);
        if (this.delivered === undefined) {
          this.delivered = state.last_seq;
        } else if (created !== this.created) {
          // It was deleted. What the new one holds came since.
          this.interrupt(0);
        } else if (state.last_seq < this.delivered) {
          // Its leader may be behind.
          shortSince ??= performance.now();
          if (performance.now() - shortSince < LEADER_LAG) {
            await sleep(RETRY_INTERVAL);
            continue;
          }
          // It was lost with the memory of its servers. What it holds now came since.
          this.interrupt(0);
        }
        this.created = created;
        return this.delivered + 1;
      } catch (error) {
        shortSince = undefined;
        if (this.delivered !== undefined && attempt === 0) this.interrupt(this.delivered);
        if (error instanceof SetupError) this.onRefusal(error);
        else if (error instanceof UnansweredError || error instanceof RefusedError)
          this.warnWaiting(`waiting for JetStream, which carries rooms: ${withAdvice(error)}`);
        else throw error;
        await sleep(RETRY_INTERVAL);
      }
    }
    return undefined;
  }

  private onRefusal(error: SetupError): void {
    if (this.isStarted) this.logRefused(error.message);
    else this.started.reject(error);
  }
}
