import type { Frames } from '../wire/frames.js';

/** The most bytes of one batch, unless a single message has more. A client that does not read holds one batch. */
const BATCH_BYTES = 32 * 1024;

interface Part extends Frames {
  /** It came from another client. */
  readonly isHeard: boolean;
}

/** What one client is to be sent next, gathered while it takes what it was sent before. */
export class Outbox {
  /** Of what is waiting, that which came from others: its bounds are whose puts it to check. */
  readonly heard = { count: 0, bytes: 0 };
  /** Called when there is something to take. */
  onMore: () => void = () => {};

  private readonly parts: Part[] = [];
  private ended = false;
  private isWaking = false;
  private putter: (() => void) | undefined;

  put(frames: Frames): void {
    if (this.ended) return;
    this.parts.push({ ...frames, isHeard: false });
    this.onMore();
  }

  /** Puts what another client said; what others say at the same time is taken with it. */
  hear(framed: Buffer): void {
    if (this.ended) return;
    this.heard.count++;
    this.heard.bytes += framed.length;
    this.parts.push({ bytes: framed, count: 1, isHeard: true });
    if (this.isWaking) return;
    this.isWaking = true;
    queueMicrotask(() => {
      this.isWaking = false;
      this.onMore();
    });
  }

  get isEmpty(): boolean {
    return this.parts.length === 0;
  }

  /** The next batch; undefined if there is nothing. */
  take(): Frames | undefined {
    if (this.isEmpty) return undefined;
    const taken = this.parts.splice(0, this.nextParts());
    let bytes = 0;
    let count = 0;
    for (const part of taken) {
      bytes += part.bytes.length;
      count += part.count;
      if (part.isHeard) {
        this.heard.count--;
        this.heard.bytes -= part.bytes.length;
      }
    }
    if (taken.some(({ isHeard }) => !isHeard)) this.putter?.();
    if (taken.length === 1) return { bytes: taken[0].bytes, count };
    // Not from node's pool, of which a client that does not read would hold 64 KiB.
    const whole = Buffer.allocUnsafeSlow(bytes);
    let at = 0;
    for (const part of taken) at += part.bytes.copy(whole, at);
    return { bytes: whole, count };
  }

  /** How many parts the next batch has. */
  private nextParts(): number {
    let bytes = 0;
    for (const [i, part] of this.parts.entries()) {
      bytes += part.bytes.length;
      if (i > 0 && bytes > BATCH_BYTES) return i;
    }
    return this.parts.length;
  }

  /** Resolves when what was put is taken: for who puts and is not to run ahead. */
  async taken(): Promise<void> {
    if (this.ended || this.parts.every(({ isHeard }) => isHeard)) return;
    await new Promise<void>((resolve) => (this.putter = resolve));
    this.putter = undefined;
  }

  /** Nothing more is put; what is there is still taken. */
  end(): void {
    this.ended = true;
    this.putter?.();
  }
}
