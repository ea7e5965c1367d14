import type { Frames } from '../wire/frames.js';

/** The most bytes of one batch, unless a single message has more. A client that does not read holds one batch. */
const BATCH_BYTES = 32 * 1024;

interface Part extends Frames {
  /** True for a message of another member of a room. */
  readonly isFromRoom: boolean;
}

/** A chat's queue of what its client is sent next. It grows while the client takes what was sent before. */
export class Outbox {
  /** How many of the queued messages came from rooms, and their bytes. The caller of putFromRoom() bounds them. */
  readonly fromRooms = { count: 0, bytes: 0 };
  /** Called when there is something to take. */
  onMore: () => void = () => {};

  private readonly parts: Part[] = [];
  private ended = false;
  private isWaking = false;
  /** Resolves the promise of taken(). */
  private onTaken: (() => void) | undefined;

  put(frames: Frames): void {
    if (this.ended) return;
    this.parts.push({ ...frames, isFromRoom: false });
    this.onMore();
  }

  /** Queues a message of a room. Messages that come in the same turn are taken together. */
  putFromRoom(framed: Buffer): void {
    if (this.ended) return;
    this.fromRooms.count++;
    this.fromRooms.bytes += framed.length;
    this.parts.push({ bytes: framed, count: 1, isFromRoom: true });
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

  /** Returns the next batch, or undefined if there is nothing. */
  take(): Frames | undefined {
    if (this.isEmpty) return undefined;
    const taken = this.parts.splice(0, this.nextParts());
    let bytes = 0;
    let count = 0;
    for (const part of taken) {
      bytes += part.bytes.length;
      count += part.count;
      if (part.isFromRoom) {
        this.fromRooms.count--;
        this.fromRooms.bytes -= part.bytes.length;
      }
    }
    if (taken.some(({ isFromRoom }) => !isFromRoom)) this.onTaken?.();
    if (taken.length === 1) return { bytes: taken[0].bytes, count };
    // Not from node's pool: a client that does not read would keep 64 KiB of the pool alive.
    const whole = Buffer.allocUnsafeSlow(bytes);
    let at = 0;
    for (const part of taken) at += part.bytes.copy(whole, at);
    return { bytes: whole, count };
  }

  /** Returns how many parts the next batch has. */
  private nextParts(): number {
    let bytes = 0;
    for (const [i, part] of this.parts.entries()) {
      bytes += part.bytes.length;
      if (i > 0 && bytes > BATCH_BYTES) return i;
    }
    return this.parts.length;
  }

  /** Resolves once everything that put() queued is taken, so that its caller does not run ahead of the client. */
  async taken(): Promise<void> {
    if (this.ended || this.parts.every(({ isFromRoom }) => isFromRoom)) return;
    await new Promise<void>((resolve) => (this.onTaken = resolve));
    this.onTaken = undefined;
  }

  /** Refuses further messages. Those that are queued can still be taken. */
  end(): void {
    this.ended = true;
    this.onTaken?.();
  }
}
