import type { Position } from '../wire/cursor.js';
import { cutAfter, type EventBatch } from '../wire/event-batch.js';
import { concatenate } from '../wire/slab.js';
import type { StoredRun } from './append-queue.js';

/** Bytes of memory that a run takes beside its own: most of it where each commit has one event. */
const RUN_OVERHEAD = 400;

interface TopicTail {
  readonly runs: RunList;
  /** The last answer: watchers of one topic mostly stand at the same position. */
  memo: { after: Position; maxBytes: number; batch: EventBatch } | undefined;
}

/**
 * The newest runs of the log, in memory, bounded over all topics, shared by all watchers. Where no limit
 * removes them, runs leave in the order of their positions: it holds every run after `horizon`, of every topic.
 */
export class Tail {
  /** Of the events held. */
  bytes = 0;
  private count = 0;
  private readonly topics = new Map<string, TopicTail>();
  private readonly order = new RunList();

  constructor(
    public horizon: Position,
    private readonly maxBytes: number,
  ) {}

  add(run: StoredRun): void {
    let tail = this.topics.get(run.topic);
    if (!tail) this.topics.set(run.topic, (tail = { runs: new RunList(), memo: undefined }));
    tail.runs.push(run);
    this.order.push(run);
    this.bytes += run.bytes.length;
    this.count++;
    while (this.bytes + this.count * RUN_OVERHEAD > this.maxBytes) {
      const oldest = this.oldest!;
      this.horizon = oldest.last;
      this.remove(oldest);
    }
  }

  get oldest(): StoredRun | undefined {
    return this.order.first;
  }

  /** What is held of a topic, oldest first. */
  runs(topic: string): readonly StoredRun[] {
    return this.topics.get(topic)?.runs.all() ?? [];
  }

  /** Events after a position that is not before the horizon. */
  read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    const tail = this.topics.get(topic);
    if (!tail || tail.runs.last!.last <= after) return undefined;
    if (tail.memo?.after === after && tail.memo.maxBytes === maxBytes) return tail.memo.batch;

    let i = tail.runs.indexAfter(after);
    const first = tail.runs.at(i)!;
    const parts: EventBatch[] = [first.first > after ? first : cutAfter(first, after)];
    let bytes = parts[0].bytes.length;
    for (let run = tail.runs.at(++i); run; run = tail.runs.at(++i)) {
      bytes += run.bytes.length;
      if (bytes > maxBytes) break;
      parts.push(run);
    }
    const batch = joined(parts);
    tail.memo = { after, maxBytes, batch };
    return batch;
  }

  /** Removes the oldest run of a topic. */
  remove(run: StoredRun): void {
    this.bytes -= run.bytes.length;
    this.count--;
    this.order.blank(run);
    const tail = this.topics.get(run.topic)!;
    tail.runs.blank(run);
    tail.memo = undefined;
    if (tail.runs.first === undefined) this.topics.delete(run.topic);
  }
}

const NOTHING = Buffer.alloc(0);

/** Runs in the order of their positions, of which mostly the oldest are taken out. */
class RunList {
  private runs: StoredRun[] = [];
  private start = 0;

  get first(): StoredRun | undefined {
    return this.runs[this.start];
  }

  get last(): StoredRun | undefined {
    return this.runs.at(-1);
  }

  /** By an index that indexAfter() has returned, or one after it. */
  at(index: number): StoredRun | undefined {
    return this.runs[index];
  }

  all(): readonly StoredRun[] {
    return this.runs.slice(this.start);
  }

  push(run: StoredRun): void {
    this.runs.push(run);
  }

  /** Takes a run out: its place stays, without its bytes, until all before it are gone. */
  blank(run: StoredRun): void {
    this.runs[this.indexAfter(run.first - 1)] = { ...run, count: 0, bytes: NOTHING };
    while (this.first?.count === 0) this.start++;
    if (this.start > 64 && this.start > this.runs.length / 2) {
      this.runs = this.runs.slice(this.start);
      this.start = 0;
    }
    if (this.start === this.runs.length) this.runs = [];
    this.start = Math.min(this.start, this.runs.length);
  }

  /** The index of the first run that ends after a position. */
  indexAfter(position: Position): number {
    let low = this.start;
    let high = this.runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.runs[middle].last > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

export function joined(parts: readonly EventBatch[]): EventBatch {
  if (parts.length === 1) return parts[0];
  return {
    bytes: concatenate(
      parts.map((part) => part.bytes),
      // Memory of its own: what is sent and dropped must not leave a slab to the few bytes of the tail in it.
      Buffer.allocUnsafeSlow(parts.reduce((sum, part) => sum + part.bytes.length, 0)),
    ),
    count: parts.reduce((sum, part) => sum + part.count, 0),
    last: parts[parts.length - 1].last,
  };
}
