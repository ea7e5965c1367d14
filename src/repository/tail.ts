import type { Position } from '../wire/cursor.js';
import { cutAfter, type EventBatch } from '../wire/event-batch.js';
import { concatenate } from '../wire/slab.js';
import type { StoredRun } from './append-queue.js';

/** Stands in an array where a run was, so that the array does not hold it until it is cut. */
const GONE: StoredRun = {
  topic: '',
  first: 0,
  last: 0,
  count: 0,
  bytes: Buffer.alloc(0),
  storedAt: 0,
};

interface TopicTail {
  /** In order of position; those before `start` are gone. */
  runs: StoredRun[];
  start: number;
  /** The last answer: watchers of one topic mostly stand at the same position. */
  memo: { after: Position; maxBytes: number; batch: EventBatch } | undefined;
}

/**
 * The newest runs of the log, in memory, bounded over all topics, shared by all watchers. Runs leave in
 * the order of their positions, so it holds every run after `horizon`, of every topic.
 */
export class Tail {
  private readonly topics = new Map<string, TopicTail>();
  private order: StoredRun[] = [];
  private oldest = 0;
  private bytes = 0;

  constructor(
    public horizon: Position,
    private readonly maxBytes: number,
  ) {}

  add(run: StoredRun): void {
    let tail = this.topics.get(run.topic);
    if (!tail) this.topics.set(run.topic, (tail = { runs: [], start: 0, memo: undefined }));
    tail.runs.push(run);
    this.order.push(run);
    this.bytes += run.bytes.length;
    while (this.bytes > this.maxBytes) this.dropOldest();
  }

  /** What is held of a topic, oldest first. */
  runs(topic: string): readonly StoredRun[] {
    const tail = this.topics.get(topic);
    return tail ? tail.runs.slice(tail.start) : [];
  }

  /** The newest run of a topic, if it is held. */
  last(topic: string): StoredRun | undefined {
    return this.topics.get(topic)?.runs.at(-1);
  }

  /** Events after a position that is not before the horizon. */
  read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    const tail = this.topics.get(topic);
    if (!tail) return undefined;
    const { runs } = tail;
    if (runs[runs.length - 1].last <= after) return undefined;
    if (tail.memo?.after === after && tail.memo.maxBytes === maxBytes) return tail.memo.batch;

    let i = firstEndingAfter(runs, tail.start, after);
    const parts: EventBatch[] = [runs[i].first > after ? runs[i] : cutAfter(runs[i], after)];
    let bytes = parts[0].bytes.length;
    while (++i < runs.length && bytes + runs[i].bytes.length <= maxBytes) {
      parts.push(runs[i]);
      bytes += runs[i].bytes.length;
    }
    const batch = joined(parts, bytes);
    tail.memo = { after, maxBytes, batch };
    return batch;
  }

  private dropOldest(): void {
    const run = this.order[this.oldest];
    this.order[this.oldest++] = GONE;
    if (this.oldest > 1024 && this.oldest > this.order.length / 2) {
      this.order = this.order.slice(this.oldest);
      this.oldest = 0;
    }
    this.bytes -= run.bytes.length;
    this.horizon = run.last;
    const tail = this.topics.get(run.topic)!;
    tail.runs[tail.start++] = GONE;
    tail.memo = undefined;
    if (tail.start === tail.runs.length) this.topics.delete(run.topic);
    else if (tail.start > 64 && tail.start > tail.runs.length / 2) {
      tail.runs = tail.runs.slice(tail.start);
      tail.start = 0;
    }
  }
}

/** The index of the first run, from `start` on, that ends after a position; `runs.length` if none. */
export function firstEndingAfter(
  runs: readonly StoredRun[],
  start: number,
  position: Position,
): number {
  let low = start;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runs[middle].last > position) high = middle;
    else low = middle + 1;
  }
  return low;
}

export function joined(parts: readonly EventBatch[], bytes: number): EventBatch {
  if (parts.length === 1) return parts[0];
  return {
    bytes: concatenate(
      parts.map((part) => part.bytes),
      bytes,
    ),
    count: parts.reduce((sum, part) => sum + part.count, 0),
    last: parts[parts.length - 1].last,
  };
}
