import { longestLine } from '../config/body-lines.js';
import type { ReceivedFrames } from '../wire/frames.js';
import { BodyChunks } from './body-chunks.js';
import type { BodyFormat } from './body-format.js';
import type { HttpCall } from './http-call.js';
import type { LineBudget } from './line-budget.js';
import { Lines } from './lines.js';

type Next = IteratorResult<ReceivedFrames>;

/** The events of a body, as frames: those of a chunk of the body are a batch. */
export class UploadedFrames implements AsyncIterableIterator<ReceivedFrames> {
  /** Made at the first next(): a request that BodyChunks listens to does not flow, and a refused upload is never read. */
  private chunks: BodyChunks | undefined;
  private readonly lines: Lines;
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
    const { request, signal } = this.call;
    for (;;) {
      if (this.problem !== undefined) throw this.problem;
      if (this.isOver) return { done: true, value: undefined };
      this.chunks ??= new BodyChunks(request, signal);
      const chunk = await this.chunks.next();
      if (this.isOver) continue;
      if (chunk) this.call.receivedAt = performance.now();
      else this.isOver = true;
      const frames = this.framesOf(chunk);
      if (frames.length > 0) return { done: false, value: { pieces: [Buffer.concat(frames)] } };
    }
  }

  /** Reads no more, also where next() waits. */
  return(): Promise<Next> {
    this.isOver = true;
    this.problem = undefined;
    this.chunks?.stop();
    this.release();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Returns the frames of the lines that end in a chunk, up to the first that is bad. */
  private framesOf(chunk: Buffer | undefined): Buffer[] {
    const frames: Buffer[] = [];
    try {
      if (chunk) {
        for (const line of this.lines.push(chunk)) this.add(frames, line);
        this.budget.note(this, this.lines.heldBytes);
      } else {
        const last = this.lines.end();
        if (last) this.add(frames, last);
      }
    } catch (error) {
      this.problem = error;
    }
    return frames;
  }

  private add(frames: Buffer[], line: Buffer): void {
    const frame = this.format.frameOf(line);
    if (frame) frames.push(frame);
  }

  private release(): void {
    this.lines.drop();
    this.budget.note(this, 0);
  }
}
