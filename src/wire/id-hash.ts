/**
 * A 64-bit hash of (topic, id), in two halves of 32 bits, with a sign: V8 keeps a field of more than 31 bits in another
 * way, and compiles what uses it again. It is kept on disk: another function is another format. Not a defence against
 * who makes collisions: who finds one by hash looks at the id itself.
 */
export class IdHash {
  high = 0;
  low = 0;

  /** Starts with the hash of a topic, so that it is made once for all its events. */
  start(topic: IdHash): void {
    this.high = topic.high;
    this.low = topic.low;
  }

  reset(): void {
    this.high = 0x811c9dc5 | 0;
    this.low = 0x9747b28c | 0;
  }

  /** FNV-1a in one half, a multiplication by another odd number in the other. */
  update(bytes: Buffer, start: number, end: number): void {
    let { high, low } = this;
    for (let i = start; i < end; i++) {
      const byte = bytes[i];
      high = Math.imul(high ^ byte, 0x01000193);
      low = Math.imul(low + byte, 0x9e3779b1);
      low ^= low >>> 15;
    }
    this.high = high;
    this.low = low;
  }

  /** To be called last. Never 0 in both halves: that means no id. */
  finish(): void {
    let low = this.low ^ (this.high >>> 7);
    low = Math.imul(low ^ (low >>> 16), 0x85ebca6b);
    this.low = low ^ (low >>> 13);
    if (this.high === 0 && this.low === 0) this.low = 1;
  }
}
