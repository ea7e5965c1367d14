import type { Frames } from '../wire/frames.js';

/** What one client is to be sent next, gathered while it takes what it was sent before. */
export class Outbox {
  private parts: Buffer[] = [];
  private bytes = 0;
  private count = 0;
  private ended = false;
  private taker: (() => void) | undefined;
  private putter: (() => void) | undefined;

  put({ bytes, count }: Frames): void {
    if (this.ended) return;
    this.parts.push(bytes);
    this.bytes += bytes.length;
    this.count += count;
    this.taker?.();
  }

  /** All that is there, as soon as there is something; undefined at the end. */
  async take(): Promise<Frames | undefined> {
    if (this.count === 0 && !this.ended)
      await new Promise<void>((resolve) => (this.taker = resolve));
    this.taker = undefined;
    if (this.count === 0) return undefined;
    const { parts, bytes, count } = this;
    this.parts = [];
    this.bytes = 0;
    this.count = 0;
    this.putter?.();
    this.putter = undefined;
    return { bytes: parts.length === 1 ? parts[0] : Buffer.concat(parts, bytes), count };
  }

  /** Resolves when all is taken: for who puts and is not to run ahead. */
  async taken(): Promise<void> {
    if (this.count > 0 && !this.ended)
      await new Promise<void>((resolve) => (this.putter = resolve));
  }

  /** Nothing more is put; what is there is still taken. */
  end(): void {
    this.ended = true;
    this.taker?.();
    this.putter?.();
  }
}
