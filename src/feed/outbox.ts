import type { Frames } from '../wire/frames.js';

/** What one client is to be sent next, gathered while it takes what it was sent before. */
export class Outbox {
  /** Of what is waiting, that which came from others: its bounds are whose puts it to check. */
  heard = { count: 0, bytes: 0 };
  /** Called when there is something to take. */
  onMore: () => void = () => {};

  private parts: Buffer[] = [];
  private bytes = 0;
  private count = 0;
  private ended = false;
  private isWaking = false;
  private putter: (() => void) | undefined;

  put(frames: Frames): void {
    this.add(frames);
    this.onMore();
  }

  /** Puts what another client said; what others say at the same time is taken with it. */
  hear(framed: Buffer): void {
    this.heard.count++;
    this.heard.bytes += framed.length;
    this.add({ bytes: framed, count: 1 });
    if (this.isWaking) return;
    this.isWaking = true;
    queueMicrotask(() => {
      this.isWaking = false;
      this.onMore();
    });
  }

  get isEmpty(): boolean {
    return this.count === 0;
  }

  /** All that is there; undefined if there is nothing. */
  take(): Frames | undefined {
    if (this.count === 0) return undefined;
    const { parts, bytes, count } = this;
    this.parts = [];
    this.bytes = 0;
    this.count = 0;
    this.heard = { count: 0, bytes: 0 };
    this.putter?.();
    return { bytes: parts.length === 1 ? parts[0] : Buffer.concat(parts, bytes), count };
  }

  /** Resolves when all is taken: for who puts and is not to run ahead. */
  async taken(): Promise<void> {
    if (this.count === 0 || this.ended) return;
    await new Promise<void>((resolve) => (this.putter = resolve));
    this.putter = undefined;
  }

  /** Nothing more is put; what is there is still taken. */
  end(): void {
    this.ended = true;
    this.putter?.();
  }

  private add({ bytes, count }: Frames): void {
    if (this.ended) return;
    this.parts.push(bytes);
    this.bytes += bytes.length;
    this.count += count;
  }
}
