import type { TopicSet } from '../../wire/topic-set.js';
import type { RunMessage } from './message.js';

/**
 * The runs of a set of topics from a sequence on, as a read found them. If the stream is then found to have removed none of the set's events
 * there, these are all that there ever were: a later read that has all of them lacks none, whatever was removed meanwhile.
 */
export class ListedRuns {
  /** They are listed up to this sequence. */
  upTo: number;
  private readonly sequences: number[] = [];

  constructor(private readonly from: number) {
    this.upTo = from - 1;
  }

  /** Adds the runs that a read found behind `upTo`. */
  add(found: readonly RunMessage[], topics: TopicSet): void {
    for (const { sequence, run } of found) {
      if (topics.has(run.topic)) this.sequences.push(sequence);
      this.upTo = sequence;
    }
  }

  /** Returns true if a run from a sequence on is listed that should be in these and is not. */
  hasMoreThan(found: readonly RunMessage[], from: number): boolean {
    const last = lastOf(found);
    const held = new Set(found.map(({ sequence }) => sequence));
    return this.sequences.some((one) => one >= from && one <= last && !held.has(one));
  }

  /** Returns true if runs that were read from a sequence on are between the first and the last one that are listed. */
  reachesOver(found: readonly RunMessage[], from: number): boolean {
    return found.length > 0 && from >= this.from && lastOf(found) <= this.upTo;
  }
}

const lastOf = (found: readonly RunMessage[]): number => found.at(-1)?.sequence ?? 0;
