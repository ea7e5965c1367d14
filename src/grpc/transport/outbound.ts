import type { FrameSource, Frames } from '../../wire/frames.js';
import { pump, type Sink } from '../../wire/pump.js';
import type { Call } from './call.js';
import type { Writer } from './send-limit.js';

/** The largest single write, in bytes. A larger batch is written in parts, each once the kernel has taken the one before. */
const PART_BYTES = 64 * 1024;

/**
 * Sends the response headers, and then a source's batches to the client. Settles as pump() does, once the status can follow.
 */
export function send(source: FrameSource, call: Call): Promise<void> {
  call.sendHeaders();
  return pump(source, new CallSink(call));
}

/** Writes batches to the HTTP/2 stream of a call, when its connection has room. */
class CallSink implements Sink, Writer {
  private onReady!: () => void;
  /** The rest of a batch that is larger than one write. */
  private unsent: Buffer | undefined;
  /** The bytes of the write that is not done, and its round (SendLimit). */
  private writingBytes = 0;
  private round = 0;
  /** True from end() on, which writes the rest by itself. */
  private isEnding = false;

  constructor(private readonly call: Call) {}

  get signal(): AbortSignal {
    return this.call.signal;
  }

  open(onReady: () => void): void {
    this.onReady = onReady;
  }

  isReady(): boolean {
    const { outbound } = this.call.connection;
    if (!outbound.isFull()) return true;
    outbound.waitForRoom(this);
    return false;
  }

  /** SendLimit calls this when the connection has room again. */
  resume(): void {
    if (this.unsent) this.writePart(this.unsent);
    else this.onReady();
  }

  write({ bytes }: Frames): void {
    this.writePart(bytes);
  }

  /**
   * Writes a batch, or the first part of a long one, straight to the HTTP/2 stream. grpc-js would make a write, an allocation
   * and a copy for each message (grpc-node 2899). It still sends headers and trailers, which queue on the same stream.
   */
  private writePart(bytes: Buffer): void {
    const { stream, connection } = this.call;
    const part = bytes.length > PART_BYTES ? bytes.subarray(0, PART_BYTES) : bytes;
    this.unsent = part === bytes ? undefined : bytes.subarray(PART_BYTES);
    // grpc-js ended the stream at its deadline. The call's own timer aborts the call soon.
    if (stream.writableEnded) return;
    this.writingBytes = part.length;
    this.round = connection.outbound.writeBegins(part.length);
    stream.write(part, this.onWritten);
  }

  private readonly onWritten = (error: Error | null | undefined): void => {
    const { call, unsent } = this;
    call.connection.writeDone(this.writingBytes, this.round);
    // After an error the stream closes, which aborts the call with the reason.
    if (error) return;
    call.writesDone++;
    if (this.isEnding) return;
    if (!unsent) this.onReady();
    else if (this.isReady()) this.writePart(unsent);
  };

  end(taken: Frames | undefined, onEnd: () => void): void {
    const { call } = this;
    this.isEnding = true;
    call.connection.outbound.stopWaiting(this);
    const rest = taken?.bytes ?? this.unsent;
    this.unsent = undefined;
    if (rest) writeRest(call, rest, onEnd);
    else onEnd();
  }
}

/**
 * Writes what is left of a batch after an abort: a client that gets the status in the middle of a message reports an error of its own
 * instead. Calls `onEnd`
 * once the status can follow, or once the stream can't be written to any more; it may do so more than once.
 */
function writeRest(call: Call, rest: Buffer, onEnd: () => void): void {
  const { stream, connection } = call;
  // If a write is not done when the stream closes, node may never call back.
  stream.once('close', onEnd);
  const writePart = (at: number): void => {
    if (call.isClosed || stream.writableEnded) {
      onEnd();
      return;
    }
    const part = rest.subarray(at, at + PART_BYTES);
    const next = at + part.length;
    const round = connection.outbound.writeBegins(part.length);
    stream.write(part, (error) => {
      connection.writeDone(part.length, round);
      if (error) return;
      call.writesDone++;
      if (next < rest.length) writePart(next);
    });
    if (next === rest.length) onEnd();
  };
  writePart(0);
}
