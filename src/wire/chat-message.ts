import {
  BadMessageError,
  frame,
  FRAME_HEADER_BYTES,
  frameLength,
  type Frames,
  type ReceivedFrames,
  writeFrameHeader,
} from './frames.js';
import { BYTES, bytesField, FieldReader, varintBytes, writeVarint } from './protobuf.js';
import { isValidUtf8 } from './utf8.js';

/** One received ChatMessage. Only its room is decoded; its text is a range of bytes in `source`. */
export interface ChatMessageView {
  readonly source: Buffer;
  /** The encoded message is source[start, end): the frame's header lies before `start`. */
  readonly start: number;
  readonly end: number;
  /** The text is source[textStart, textEnd). */
  readonly textStart: number;
  readonly textEnd: number;
  readonly room: string;
}

const FROM = 1;
const TEXT = 2;
const ROOM = 3;
const NAMES = ['', 'from', 'text', 'room'];

// One reader serves every message, because readChatMessage() never waits.
const fields = new FieldReader();

/**
 * Checks and yields the messages of a stream in the order in which they came.
 *
 * @throws BadMessageError at the first message that is malformed
 */
export function* chatMessagesIn(received: ReceivedFrames): Generator<ChatMessageView> {
  for (const source of received.pieces) {
    for (let at = 0; at < source.length;) {
      const start = at + FRAME_HEADER_BYTES;
      at = start + frameLength(source, at);
      yield readChatMessage(source, start, at);
    }
  }
}

function readChatMessage(source: Buffer, start: number, end: number): ChatMessageView {
  let textStart = 0;
  let textEnd = 0;
  let roomStart = 0;
  let roomEnd = 0;
  fields.read(source, start, end);
  while (fields.next()) {
    const number = fields.field;
    if (number > ROOM) continue;
    if (fields.type !== BYTES)
      throw new BadMessageError(`${NAMES[number]} has the wrong wire type`);
    if (!isValidUtf8(source, fields.start, fields.end)) {
      throw new BadMessageError(`${NAMES[number]} is not valid UTF-8`);
    }
    if (number === TEXT) {
      textStart = fields.start;
      textEnd = fields.end;
    } else if (number === ROOM) {
      roomStart = fields.start;
      roomEnd = fields.end;
    }
  }
  if (fields.problem !== undefined) {
    throw new BadMessageError(`it is not well-formed protobuf: ${fields.problem}`);
  }
  const room = source.toString('utf8', roomStart, roomEnd);
  return { source, start, end, textStart, textEnd, room };
}

/**
 * Returns a copy of the message as it came in, with a frame header in front of it.
 *
 * @param from replaces what the message says in `from`
 */
export function framedMessage({ source, start, end }: ChatMessageView, from?: string): Buffer {
  return frame(from === undefined ? source.subarray(start, end) : signed(source, start, end, from));
}

/**
 * Returns a copy of the message in which the only field `from` is this one. Other fields are kept, also unknown ones, of which there may
 * be half a million.
 */
function signed(source: Buffer, start: number, end: number, from: string): Buffer {
  const field = bytesField(FROM, Buffer.from(from));
  const copy = Buffer.allocUnsafe(field.length + end - start);
  let at = field.copy(copy);
  /** Where what is kept since the last field `from` begins. */
  let kept = start;
  fields.read(source, start, end);
  while (fields.next()) {
    if (fields.field !== FROM) continue;
    at += source.copy(copy, at, kept, fields.tagStart);
    kept = fields.end;
  }
  at += source.copy(copy, at, kept, end);
  return copy.subarray(0, at);
}

/** An encoded echo begins with the whole field from = "server" and the tag of the field text. */
const ECHO_HEAD = Buffer.from('\x0a\x06server\x12', 'latin1');
const ECHO_PREFIX = Buffer.from('echo: ');

/**
 * Answers each message with `{from: "server", text: "echo: " + text}`; the framed answers are one buffer. The answer
 * to "hi", without its frame header:
 *
 *     0a 06 "server"  12 08 "echo: hi"
 */
export function echoes(messages: readonly ChatMessageView[]): Frames {
  let size = 0;
  for (const message of messages) size += FRAME_HEADER_BYTES + echoBytes(message);
  const bytes = Buffer.allocUnsafeSlow(size); // not of node's pool: see frame()
  let at = 0;
  for (const message of messages) {
    writeFrameHeader(bytes, at, echoBytes(message));
    at += FRAME_HEADER_BYTES;
    at += ECHO_HEAD.copy(bytes, at);
    at = writeVarint(bytes, at, echoTextBytes(message));
    at += ECHO_PREFIX.copy(bytes, at);
    at += message.source.copy(bytes, at, message.textStart, message.textEnd);
  }
  return { bytes, count: messages.length };
}

/** The length of the answer's text, in bytes. */
function echoTextBytes(message: ChatMessageView): number {
  return ECHO_PREFIX.length + message.textEnd - message.textStart;
}

/** The length of the encoded answer, without its frame header. */
function echoBytes(message: ChatMessageView): number {
  const text = echoTextBytes(message);
  return ECHO_HEAD.length + varintBytes(text) + text;
}
