import type { Position } from '../../wire/cursor.js';

/** A topic after its newest run. */
export interface TopicState {
  /** The position of its newest event; 0 if it never had one. */
  readonly last: Position;
  /** How many events it had until now, and how many bytes. */
  readonly total: number;
  readonly totalBytes: number;
}

/** This many topics are remembered, about 200 bytes each. Others are asked for when they are written. */
const MOST_TOPICS = 200_000;

/** The states of the topics that were written last. */
export class TopicStates {
  private readonly states = new Map<string, TopicState>();

  get(topic: string): TopicState | undefined {
    return this.states.get(topic);
  }

  clear(): void {
    this.states.clear();
  }

  set(topic: string, state: TopicState): void {
    // Deleted first, so that the map's order is that of the last writes.
    this.states.delete(topic);
    this.states.set(topic, state);
    if (this.states.size <= MOST_TOPICS) return;
    for (const [oldest] of this.states) {
      this.states.delete(oldest);
      return;
    }
  }
}
