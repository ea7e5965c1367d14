/**
 * Computes a 64-bit hash of an event's (topic, id), in two signed halves of 32 bits. The hash of topic "orders" and
 * id "order-1" has high -1402803794 and low 1507333192:
 *
 *     topic.reset(); topic.update("orders"); hash.start(topic); hash.update("order-1"); hash.finish()
 *
 * The log stores these hashes, so a change of the function is a change of the log's format. The function does not
 * withstand someone who makes collisions on purpose: whoever finds an event by its hash must compare the id itself.
 *
 * The halves stay signed 32-bit integers. Where a field once holds a larger number, V8 changes how it stores the
 * field and compiles the code that uses it again.
 */
export class IdHash {
  high = 0;
  low = 0;

  /** Continues from the hash of a topic, which is computed once for all events of the topic. */
  start(topic: IdHash): void {
    this.high = topic.high;
    this.low = topic.low;
  }

  /** Starts a new hash. */
  reset(): void {
    this.high = 0x811c9dc5 | 0;
    this.low = 0x9747b28c | 0;
  }

  /** Adds bytes[start, end). The high half is FNV-1a; the low half multiplies by another odd number. */
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

  /** Completes the hash. Its halves are never both 0, because two zeros stand for an event without an id. */
  finish(): void {
    let low = this.low ^ (this.high >>> 7);
    low = Math.imul(low ^ (low >>> 16), 0x85ebca6b);
    this.low = low ^ (low >>> 13);
    if (this.high === 0 && this.low === 0) this.low = 1;
  }
}
