import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { until } from '../support/wait.js';

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** HTTP/2's frame types. */
export const DATA = 0;
export const HEADERS = 1;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PING = 6;
export const GOAWAY = 7;
export const WINDOW_UPDATE = 8;
export const CONTINUATION = 9;

export const END_STREAM = 1;
export const END_HEADERS = 4;

/** Makes an HTTP/2 frame, valid or not. */
export function h2(
  type: number,
  flags: number,
  stream: number,
  payload: string | Buffer = '',
): Buffer {
  const bytes = Buffer.from(payload as string, 'latin1');
  const head = Buffer.alloc(9);
  head.writeUIntBE(bytes.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, bytes]);
}

/** Encodes a header by HPACK without compression. `kept` puts it into the table, where 0xbe then stands for it. */
export function header(name: string, value: string, kept = false): Buffer {
  const texts = [name, value].flatMap((text) => [
    hpackInteger(text.length),
    Buffer.from(text, 'latin1'),
  ]);
  return Buffer.concat([Buffer.from([kept ? 0x40 : 0]), ...texts]);
}

/** RFC 7541, 5.1, with a prefix of 7 bits. */
function hpackInteger(value: number): Buffer {
  if (value < 127) return Buffer.from([value]);
  const bytes = [127];
  let rest = value - 127;
  for (; rest >= 128; rest >>= 7) bytes.push(128 | (rest & 127));
  return Buffer.from([...bytes, rest]);
}

/** Makes the frames of a request's headers: HEADERS, and a CONTINUATION for each further 16 KiB. */
export function headerFrames(stream: number, bytes: Buffer): Buffer {
  const size = 16 * 1024;
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    const flags = at + size >= bytes.length ? END_HEADERS : 0;
    frames.push(
      h2(at === 0 ? HEADERS : CONTINUATION, flags, stream, bytes.subarray(at, at + size)),
    );
  }
  return Buffer.concat(frames);
}

/** Encodes the headers of a call. */
export function callHeaders(
  path: string,
  contentType = 'application/grpc',
  method = 'POST',
): Buffer {
  return Buffer.concat([
    header(':method', method),
    header(':scheme', 'http'),
    header(':authority', 'feed'),
    header(':path', path),
    header('content-type', contentType),
    header('te', 'trailers'),
  ]);
}

export interface H2Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** Returns the HTTP/2 frames that these bytes have; the last one may be cut. */
export function framesOf(bytes: Buffer): H2Frame[] {
  const frames = [];
  for (let at = 0; at + 9 <= bytes.length;) {
    const end = at + 9 + bytes.readUIntBE(at, 3);
    const [type, flags] = bytes.subarray(at + 3);
    const stream = bytes.readUInt32BE(at + 5);
    frames.push({ type, flags, stream, payload: bytes.subarray(at + 9, end) });
    at = end;
  }
  return frames;
}

/** A TCP connection for bytes that no HTTP/2 library would send. */
export class RawSocket {
  isClosed = false;
  private readonly chunks: Buffer[] = [];
  private readonly closed: Promise<void>;

  private constructor(readonly socket: Socket) {
    socket.on('error', () => {});
    socket.on('data', (chunk) => this.chunks.push(chunk));
    this.closed = new Promise((resolve) =>
      socket.once('close', () => {
        this.isClosed = true;
        resolve();
      }),
    );
    onTestFinished(() => void socket.destroy());
  }

  static async connect(address: string): Promise<RawSocket> {
    const [host, port] = address.split(':');
    const socket = connect({ host, port: Number(port) });
    await once(socket, 'connect');
    return new RawSocket(socket);
  }

  /** Sends bytes, and waits until the socket takes more or is closed. */
  async send(...bytes: readonly Uint8Array[]): Promise<void> {
    if (this.isClosed || this.socket.write(Buffer.concat(bytes))) return;
    const drained = new Promise((resolve) => this.socket.once('drain', resolve));
    await Promise.race([drained, this.closed]);
  }

  /** Sends `count` messages that `make` makes, a thousand at a time, until the connection is closed. */
  async flood(count: number, make: (i: number) => Buffer): Promise<void> {
    for (let i = 0; i < count && !this.isClosed; i += 1000)
      await this.send(...Array.from({ length: 1000 }, (_, j) => make(i + j)));
  }

  get received(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get frames(): H2Frame[] {
    return framesOf(this.received);
  }

  /** Sends a PING. Resolves with "open" when it is answered, and with "closed" when the connection is closed. */
  async state(): Promise<'open' | 'closed'> {
    await this.send(h2(PING, 0, 0, 'are you?'));
    const isAnswered = (): boolean =>
      this.frames.some(({ type, payload }) => type === PING && String(payload) === 'are you?');
    await until(() => this.isClosed || isAnswered(), 'an answer to a ping');
    return this.isClosed ? 'closed' : 'open';
  }
}
