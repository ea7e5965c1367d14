import { type ClientHttp2Stream, constants, type OutgoingHttpHeaders } from 'node:http2';
import type { WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { frame } from '../../src/wire/frames.js';
import { codec } from '../support/client.js';
import { type RawCall, RawClient } from '../support/raw-client.js';
import { encodeChat, encodeEvent } from '../wire/events.js';
import {
  type Act,
  BLOCKED_ROOM,
  BUSY_TOPIC,
  FULL_TOPIC,
  type Kind,
  type OpenOptions,
  QUIET_TOPIC,
  type SetName,
  type State,
} from './stream-sets.js';

/** The window of a stream that nobody reads. It is soon used up, and 0 for an upload, whose result has a few bytes. */
const BLOCKED_WINDOW: Record<Kind, number> = { Watch: 16_384, UploadEvents: 0, Chat: 16_384 };
/** Each member receives the messages of one other. A pause of 20 s of a busy machine does not make it TOO_SLOW. */
const ROOM_SIZE = 2;
/**
 * The client's window of a connection with many streams. With node's 64 KiB, those in full flow would wait for each other, and a
 * thousand blocked ones would take a minute until they are: each one's first bytes are written only where the window has room.
 */
const CONNECTION_WINDOW = 16 * 1024 * 1024;
/**
 * The most blocked chats on a connection. The server takes up to 208 KiB of what each sends. More chats would fill what
 * FEED_SESSION_WINDOW lets a connection send ahead (at most 256 MiB, half of it in whole messages), and the server would end
 * their connection after a while, as it should.
 */
const MOST_BLOCKED_CHATS = 500;
/** How often (milliseconds) each stream in full flow sends a batch. More streams than below send less often. */
const INTERVAL = 100;
const STREAMS_AT_FULL_RATE = 100;

const times = (count: number, framed: Buffer): Buffer =>
  Buffer.concat(Array.from({ length: count }, () => framed));
const event = (topic: string): Buffer => frame(encodeEvent({ topic, body: 'x'.repeat(100) }));
const chat = (room: string, text: string): Buffer => frame(encodeChat({ room, text }));
const watch = (request: Partial<WatchRequest>): Buffer =>
  frame(codec.watchRequest.serialize(request));

/** Every watch in full flow gets these events. Five times as many were too much for a client on a busy machine. */
const busyEvents = times(10, event(BUSY_TOPIC));
const someEvents = times(10, event('uploads'));
/** Messages whose answers fill the client's window, and which fill what the server reads ahead. */
const tooManyMessages = times(256, chat('', 'x'.repeat(4_096)));
const roomOf = (index: number): string => `flow.${Math.floor(index / ROOM_SIZE)}`;

/** The bytes that a stream sends when it is opened. */
const FIRST: Record<SetName, (index: number) => Buffer> = {
  // Every other one is of a pattern.
  'Watch idle': (index) => watch({ topic: index % 2 === 0 ? QUIET_TOPIC : `${QUIET_TOPIC}.>` }),
  'Watch in full flow': (index) => watch({ topic: index % 2 === 0 ? BUSY_TOPIC : 'busy.*' }),
  // One event only: the server has no more than 128 KiB under way to a client that reads nothing, and sends the rest of the
  // watches their first bytes a little at a time, as PINGs are answered.
  'Watch blocked': () => watch({ topic: FULL_TOPIC, last: 1 }),
  'UploadEvents idle': () => event('uploads'),
  'UploadEvents in full flow': () => someEvents,
  'UploadEvents blocked': () => event('uploads'),
  'Chat idle': () => chat('quiet', ''),
  'Chat in full flow': (index) => chat(roomOf(index), ''),
  'Chat blocked': () => Buffer.concat([chat(BLOCKED_ROOM, ''), tooManyMessages]),
};

/** The bytes that a stream in full flow sends again and again. */
const NEXT: Partial<Record<SetName, (index: number) => Buffer>> = {
  'UploadEvents in full flow': (index) => (index === 0 ? busyEvents : someEvents),
  'Chat in full flow': (index) =>
    Buffer.concat([chat('', 'x'.repeat(100)), chat(roomOf(index), 'x'.repeat(100))]),
};

/**
 * Resets a stream without a half-close. Node would half-close it first, and the service might end the call well between
 * the two; a _final of its own prevents that.
 */
function cancel(stream: ClientHttp2Stream): void {
  Object.assign(stream, { _final: (done: () => void) => done() });
  stream.close(constants.NGHTTP2_CANCEL);
}

/** The streams of one kind and state, on their own connections. */
export class StreamSet {
  readonly outcomes: Record<string, number> = {};
  /** When (Date.now()) the server reset each stream that it has reset. */
  readonly resets: number[] = [];
  private readonly calls: RawCall[] = [];
  /** The streams on which a message was received or sent after the first. */
  private readonly flowing = new Set<RawCall>();

  private constructor(
    private readonly name: SetName,
    private readonly kind: Kind,
    private readonly state: State,
    private readonly clients: readonly RawClient[],
  ) {}

  static async open(name: SetName, options: OpenOptions): Promise<StreamSet> {
    const [kind, ...words] = name.split(' ') as [Kind, ...string[]];
    const state = words.join(' ') as State;
    const settings = state === 'blocked' ? { initialWindowSize: BLOCKED_WINDOW[kind] } : {};
    const least = name === 'Chat blocked' ? Math.ceil(options.streams / MOST_BLOCKED_CHATS) : 1;
    const clients = await Promise.all(
      Array.from({ length: Math.max(least, options.connections) }, () =>
        RawClient.connect(options.address, settings),
      ),
    );
    for (const { session } of clients) session.setLocalWindowSize(CONNECTION_WINDOW);
    const set = new StreamSet(name, kind, state, clients);
    const headers = options.deadline ? { 'grpc-timeout': `${options.deadline}m` } : {};
    for (let i = 0; i < options.streams; i++) set.openStream(i, headers);
    return set;
  }

  /** The client's port of each of its connections. */
  get ports(): number[] {
    return this.clients.map(({ session }) => session.socket.localPort!);
  }

  /** How many streams have reached the set's state. */
  get settled(): number {
    return this.calls.filter((call) => this.isSettled(call)).length;
  }

  act(act: Act): void {
    for (const { stream } of this.calls) {
      if (act === 'cancel') cancel(stream);
      else if (act === 'half-close') stream.end();
      else if (act === 'read') stream.resume();
      else stream.write(frame(Buffer.from([0xff])));
    }
  }

  private openStream(index: number, headers: OutgoingHttpHeaders): void {
    const client = this.clients[index % this.clients.length];
    const call = client.open(this.kind, headers);
    const { stream } = call;
    this.calls.push(call);
    void call.trailers.then((trailers) =>
      this.note(client, call, trailers?.['grpc-status'] as string | undefined),
    );
    stream.write(FIRST[this.name](index));
    if (this.kind === 'Watch') stream.end();
    if (this.state !== 'blocked') stream.on('data', () => this.flowing.add(call));
  }

  /** Begins to send on the streams of a set in full flow, and goes on until the process ends. */
  flow(): void {
    const next = NEXT[this.name];
    if (!next) return;
    const interval = INTERVAL * Math.max(1, this.calls.length / STREAMS_AT_FULL_RATE);
    const send = (): void =>
      this.calls.forEach((call, i) => {
        const { stream } = call;
        if (!stream.writable || stream.writableNeedDrain) return;
        stream.write(next(i));
        if (this.kind === 'UploadEvents') this.flowing.add(call);
      });
    setInterval(send, interval);
  }

  /** Counts how a stream ended, and half-closes it if the server ended it first. */
  private note({ session }: RawClient, { stream }: RawCall, status?: string): void {
    const outcome =
      status !== undefined
        ? `status ${status}`
        : session.destroyed
          ? 'connection lost'
          : `reset ${stream.rstCode}`;
    if (outcome.startsWith('reset')) this.resets.push(Date.now());
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
    if (stream.writable) stream.end();
  }

  private isSettled(call: RawCall): boolean {
    const { stream } = call;
    if (stream.pending || stream.closed) return false;
    if (this.state !== 'blocked') return this.flowing.has(call) === (this.state !== 'idle');
    // The client's window is used up, and the server takes no more of what a chat sends.
    return (
      stream.state.localWindowSize === 0 && (this.kind !== 'Chat' || stream.writableLength > 0)
    );
  }
}
