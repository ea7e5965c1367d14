import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import { type CheckedEvents, EventChecker } from '../../src/wire/check-events.js';
import { CURSOR_BYTES } from '../../src/wire/cursor.js';
import type { ReceivedFrames } from '../../src/wire/frames.js';

/** An event as protobuf.js reads it, independent of the code under test. */
export interface WireEvent {
  id: string;
  topic: string;
  body: string;
  at: { seconds: number; nanos: number } | null;
  cursor: string;
  attributes?: Record<string, string>;
}

export interface WireChatMessage {
  from: string;
  text: string;
  room: string;
}

const contract = loadSync(new URL('../../proto/feed/v1/feed.proto', import.meta.url).pathname, {
  longs: Number,
  defaults: true,
  includeDirs: [new URL('../../proto', import.meta.url).pathname],
});
const event = contract['feed.v1.Event'] as unknown as MessageTypeDefinition<
  Partial<WireEvent>,
  WireEvent
>;
const chatMessage = contract['feed.v1.ChatMessage'] as unknown as MessageTypeDefinition<
  Partial<WireChatMessage>,
  WireChatMessage
>;

/** Encodes the fields that are present, including empty ones. */
export const encodeEvent = (fields: Partial<WireEvent>): Buffer =>
  Buffer.from(event.serialize(fields));
export const decodeEvent = (bytes: Buffer): WireEvent => event.deserialize(bytes);
export const encodeChat = (fields: Partial<WireChatMessage>): Buffer =>
  Buffer.from(chatMessage.serialize(fields));
export const decodeChat = (bytes: Buffer): WireChatMessage => chatMessage.deserialize(bytes);

/** Encodes a varint, padded with redundant bytes up to `width` bytes. */
export function varint(value: bigint | number, width = 1): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  } while (rest > 0n || bytes.length < width);
  bytes[bytes.length - 1] &= 0x7f;
  return Buffer.from(bytes);
}

export const tag = (number: number, type: number): Buffer => varint(number * 8 + type);

export const varintField = (number: number, value: bigint | number): Buffer =>
  Buffer.concat([tag(number, 0), varint(value)]);

export const bytesField = (number: number, value: Uint8Array | string): Buffer => {
  const bytes = Buffer.from(value as Uint8Array);
  return Buffer.concat([tag(number, 2), varint(bytes.length), bytes]);
};

export function framed(...messages: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    messages.flatMap((message) => {
      const header = Buffer.alloc(5);
      header.writeUInt32BE(message.length, 1);
      return [header, message];
    }),
  );
}

/** Returns messages as a handler receives them, all in one piece. */
export const received = (...messages: readonly Uint8Array[]): ReceivedFrames => ({
  pieces: [framed(...messages)],
});

export function unframed(bytes: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    if (bytes[at] !== 0) throw new Error(`a frame at ${at} says that it is compressed`);
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) throw new Error(`a frame at ${at} ends at ${end} of ${bytes.length}`);
    messages.push(bytes.subarray(at + 5, end));
    at = end;
  }
  return messages;
}

export const eventsIn = (bytes: Buffer): WireEvent[] => unframed(bytes).map(decodeEvent);

/** Returns a checked event's bytes without the room for the cursor at their end. */
export const withoutCursor = (message: Buffer): Buffer =>
  message.subarray(0, message.length - CURSOR_BYTES - 2);

/** Checks events as an upload does. Throws if one is bad. */
export function checked(...events: readonly Partial<WireEvent>[]): CheckedEvents {
  const checker = new EventChecker();
  const taken = checker.check(received(...events.map(encodeEvent)));
  if (checker.problem) throw new Error(checker.problem.problem);
  return taken;
}
