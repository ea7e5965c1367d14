import { FRAME_HEADER_BYTES, frameLength } from '../wire/frames.js';

/** Finds the frames of a buffer by their index. If they are asked for in order, it takes one step for each. */
export class FrameWalk {
  private index = 0;
  private start = 0;

  constructor(private readonly bytes: Buffer) {}

  at(index: number): Buffer {
    if (index < this.index) this.index = this.start = 0;
    for (; this.index < index; this.index++)
      this.start += FRAME_HEADER_BYTES + frameLength(this.bytes, this.start);
    return frameStarting(this.bytes, this.start);
  }
}

/** Returns the frame that starts at an offset, with its header. */
export function frameStarting(bytes: Buffer, at: number): Buffer {
  return bytes.subarray(at, at + FRAME_HEADER_BYTES + frameLength(bytes, at));
}
