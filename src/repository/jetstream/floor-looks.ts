import type { Position } from '../../wire/cursor.js';

/** Two numbers of the stream, one of which changes whenever messages are removed. */
export interface Removals {
  readonly firstSequence: number;
  /** How many messages were removed that stood between others. */
  readonly between: number;
}

export const isSame = (one: Removals, other: Removals): boolean =>
  one.firstSequence === other.firstSequence && one.between === other.between;

/** Where the topics of a set begin: the highest of their floors, and how many topics were asked for. */
export interface FloorLook {
  readonly floor: Position;
  readonly topicsAsked: number;
}

/** The most sets of topics whose looks are remembered: the newest ones. */
const MOST_SETS = 32;

/**
 * The looks for the floors of sets of topics. A look asks NATS for each topic, and many watches of the same topics may start at once: they
 * share it, as long as the stream has removed nothing since.
 */
export class FloorLooks {
  private readonly looks = new Map<string, { removals: Removals; found: Promise<FloorLook> }>();

  /**
   * @param key that of the set
   * @param removals those of the stream, asked for before this is called
   */
  of(key: string, removals: Removals, look: () => Promise<FloorLook>): Promise<FloorLook> {
    const known = this.looks.get(key);
    if (known && isSame(known.removals, removals)) return known.found;
    const found = look();
    // Deleted first, so that the map's order is that of the last looks.
    this.looks.delete(key);
    this.looks.set(key, { removals, found });
    const [oldest] = this.looks.keys();
    if (this.looks.size > MOST_SETS) this.looks.delete(oldest);
    found.catch(() => {
      if (this.looks.get(key)?.found === found) this.looks.delete(key);
    });
    return found;
  }
}
