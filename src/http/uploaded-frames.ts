import { longestLine } from '../config/body-lines.js';
import type { ReceivedFrames } from '../wire/frames.js';
import type { BodyFormat } from './body-format.js';
import type { HttpCall } from './http-call.js';
import type { LineBudget } from './line-budget.js';
import { Lines } from './lines.js';

type Next = IteratorResult<ReceivedFrames>;

/**
 * A batch ends once its frames have this many bytes. A chunk of short lines becomes 200 times its size, because each event gets the topic's
 * name: as one batch, it would be held before the upload's limits are asked.
 */
const BATCH_BYTES = 64 * 1024;

/** The events of a body, as frames. A batch has only events that had come when it was asked for, because events do not wait for others. */
export class UploadedFrames implements AsyncIterableIterator<ReceivedFrames> {
  private readonly lines: Lines;
  /** Those lines of the last part that were not looked at. */
  private rest: Generator<Buffer> | undefined;
  private isOver = false;
  /** What is wrong with the event after those that were handed out. */
  private problem: unknown;

  constructor(
    private readonly call: HttpCall,
    private readonly format: BodyFormat,
    maxEventBytes: number,
    private readonly budget: LineBudget,
  ) {
    this.lines = new Lines(longestLine(maxEventBytes), format.isWhole);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  abort(reason: Error): void {
    this.call.abort(reason);
  }

  /** @throws BadMessageError, or the reason of the call's abort */
  async next(): Promise<Next> {
    const { body, signal } = this.call;
    for (;;) {
      if (this.problem !== undefined) throw this.problem;
      if (this.isOver) return { done: true, value: undefined };
      if (this.rest) signal.throwIfAborted();
      else {
        const chunk = await body.next();
        if (this.isOver) continue;
        if (chunk) this.call.receivedAt = performance.now();
        else this.isOver = true;
        this.rest = this.linesOf(chunk);
      }
      const frames = this.framesOf(this.rest);
      if (frames.length > 0) return { done: false, value: { pieces: [Buffer.concat(frames)] } };
    }
  }

  /** Reads no more, also where next() waits. */
  return(): Promise<Next> {
    this.isOver = true;
    this.problem = undefined;
    this.call.body.stop();
    this.rest = undefined;
    this.release();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Yields the lines that end in a chunk, or with the body. */
  private *linesOf(chunk: Buffer | undefined): Generator<Buffer> {
    if (chunk) return yield* this.lines.push(chunk);
    const last = this.lines.end();
    if (last) yield last;
  }

  /** Returns the frames of the next lines, until they are a batch, or up to the first that is bad. */
  private framesOf(lines: Generator<Buffer>): Buffer[] {
    const frames: Buffer[] = [];
    try {
      for (let bytes = 0; bytes < BATCH_BYTES;) {
        const { done, value: line } = lines.next();
        if (done) {
          this.rest = undefined;
          break;
        }
        const frame = this.format.frameOf(line);
        if (!frame) continue;
        frames.push(frame);
        bytes += frame.length;
      }
      this.budget.note(this, this.lines.heldBytes);
    } catch (error) {
      this.problem = error;
    }
    return frames;
  }

  private release(): void {
    this.lines.drop();
    this.budget.note(this, 0);
  }
}
