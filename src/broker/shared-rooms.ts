import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectPatiently, type NatsServers, type Notices } from '../nats/connect.js';
import { CODE, RefusedError, StreamApi, type StreamConfig } from '../nats/stream-api.js';
import { StreamTail } from '../nats/stream-tail.js';
import { LocalRooms, type MemberState } from './local-rooms.js';
import { RoomInterruptedError } from './rooms.js';

/** A message that no replica has got after this long (milliseconds) is dropped. */
const MAX_AGE = 60_000;
const MAX_BYTES = 64 * 2 ** 20;
/** In front of a message: the random id of the sender's process, and the number of the message in that process. */
const ID_BYTES = 8;
const HEAD_BYTES = ID_BYTES + 4;
const RETRY_INTERVAL = 200;

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

  /** Opens the rooms of a stream's replicas. Waits as long as NATS can't be reached. */
  static async open(
    nats: NatsServers & { readonly stream: string; readonly replicas: number },
    notices: Notices,
  ): Promise<SharedRooms> {
    const connection = await connectPatiently(nats, notices);
    const rooms = new SharedRooms(
      new StreamApi(connection, `${nats.stream}_ROOMS`, () => {}),
      nats.replicas,
    );
    await rooms.started.promise;
    return rooms;
  }

  private readonly started = Promise.withResolvers<void>();

  private constructor(
    api: StreamApi,
    private readonly replicas: number,
  ) {
    super();
    this.api = api;
    this.tail = new StreamTail(api, {
      onMessage: (sequence, subject, data) => this.onMessage(sequence, subject, data),
      onIdle: (sequence) => {
        if (sequence > (this.delivered ?? Infinity)) this.interrupt(sequence);
      },
      next: () => this.next(),
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
    this.deliver(subject.slice(this.subjectOf('').length), data.subarray(HEAD_BYTES), sender);
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
    for (let attempt = 0; !this.isClosed; attempt++) {
      try {
        const { state, created } = await this.api.info();
        if (this.delivered === undefined) this.delivered = state.last_seq;
        // It was lost with the memory of its servers, or deleted. What it holds now came since.
        else if (created !== this.created || state.last_seq < this.delivered) this.interrupt(0);
        this.created = created;
        this.started.resolve();
        return this.delivered + 1;
      } catch (error) {
        if (this.delivered !== undefined && attempt === 0) this.interrupt(this.delivered);
        if (error instanceof RefusedError && error.code === CODE.streamNotFound)
          await this.api.create(this.config()).catch(() => {});
        await sleep(RETRY_INTERVAL);
      }
    }
    return undefined;
  }

  private config(): StreamConfig {
    const { stream } = this.api;
    return {
      name: stream,
      subjects: [`${stream}.>`],
      storage: 'memory',
      retention: 'limits',
      discard: 'old',
      num_replicas: this.replicas,
      max_age: MAX_AGE * 1e6,
      max_bytes: MAX_BYTES,
      max_msgs: -1,
      max_msgs_per_subject: -1,
      max_msg_size: -1,
      duplicate_window: 100e6,
      allow_direct: false,
      allow_atomic: false,
      metadata: {},
    };
  }
}
