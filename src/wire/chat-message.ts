import {
  BadMessageError,
  frame,
  FRAME_HEADER_BYTES,
  frameLength,
  type Frames,
  type ReceivedFrames,
  writeFrameHeader,
} from './frames.js';
import { BYTES, FieldReader, varintBytes, writeVarint } from './protobuf.js';
import { isValidUtf8 } from './utf8.js';

/** A chat message as it came in: its strings are still bytes of `source`. */
export interface ChatMessageView {
  readonly source: Buffer;
  /** Where the message is in the source, without its frame's header. */
  readonly start: number;
  readonly end: number;
  readonly textStart: number;
  readonly textEnd: number;
  readonly room: string;
}

const TEXT = 2;
const ROOM = 3;
const NAMES = ['', 'from', 'text', 'room'];

const fields = new FieldReader();

/** @throws BadMessageError at the first message that is not what the contract says */
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
  let room = '';
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
      room = source.toString('utf8', fields.start, fields.end);
    }
  }
  if (fields.problem !== undefined) {
    throw new BadMessageError(`it is not well-formed protobuf: ${fields.problem}`);
  }
  return { source, start, end, textStart, textEnd, room };
}

/** A message as it came in, in a frame and memory of its own. */
export function framedMessage({ source, start, end }: ChatMessageView): Buffer {
  return frame(source.subarray(start, end));
}

const ECHO_FROM = Buffer.from('\x0a\x06server\x12', 'latin1'); // from = "server"; text's tag
const ECHO_PREFIX = Buffer.from('echo: ');

/** The answers `{from: "server", text: "echo: " + text}` to messages, in one buffer. */
export function echoes(messages: readonly ChatMessageView[]): Frames {
  let size = 0;
  for (const message of messages) size += FRAME_HEADER_BYTES + echoBytes(message);
  const bytes = Buffer.allocUnsafeSlow(size); // as in frame()
  let at = 0;
  for (const message of messages) {
    writeFrameHeader(bytes, at, echoBytes(message));
    at += FRAME_HEADER_BYTES;
    at += ECHO_FROM.copy(bytes, at);
    at = writeVarint(bytes, at, echoTextBytes(message));
    at += ECHO_PREFIX.copy(bytes, at);
    at += message.source.copy(bytes, at, message.textStart, message.textEnd);
  }
  return { bytes, count: messages.length };
}

function echoTextBytes(message: ChatMessageView): number {
  return ECHO_PREFIX.length + message.textEnd - message.textStart;
}

function echoBytes(message: ChatMessageView): number {
  const text = echoTextBytes(message);
  return ECHO_FROM.length + varintBytes(text) + text;
}
