import { randomInt } from 'node:crypto';
import { type Cursor, type Epoch, epochOf, type Position } from '../wire/cursor.js';
import type { CursorPlace } from './event-repository.js';

/**
 * An epoch, and the position after which it began: all events of the epoch have later positions. The first epoch of a log began after 0;
 * if the first one that is known began later, earlier ones were forgotten.
 */
export interface EpochStart {
  readonly epoch: Epoch;
  readonly after: Position;
}

/**
 * The epochs of one log, the oldest first. They tell a cursor of this log from one of another history, such as that of a
 * lost log of which this one is a copy: docs/architecture.md, "Position, epoch and cursor, by an example".
 */
export class Epochs {
  constructor(readonly starts: readonly EpochStart[]) {}

  /** Returns these epochs and a new one, which begins after a position. */
  begun(after: Position): Epochs {
    // An epoch that wrote nothing is in no cursor and can go; but the first one may be in the cursor of position 0.
    const starts = this.starts.filter((start, i) => i === 0 || start.after < after);
    return new Epochs([...starts, { epoch: randomEpoch(), after }]);
  }

  get current(): Epoch {
    return this.starts[this.starts.length - 1].epoch;
  }

  /** Returns the cursor of a position, with the epoch that gave it out. */
  cursorAt(position: Position): Cursor {
    let i = this.starts.length - 1;
    while (i > 0 && this.starts[i].after >= position) i--;
    return { epoch: this.starts[i].epoch, position };
  }

  /** Says where a cursor stands in a log that ends at `head`. */
  locate({ epoch, position }: Cursor, head: Position): CursorPlace {
    const i = this.starts.findIndex((start) => start.epoch === epoch);
    const { after } = this.starts[0];
    if (i < 0) return after > 0 && position <= after ? 'forgotten-epoch' : 'other-epoch';
    if (i > 0 && position <= this.starts[i].after) return 'other-epoch';
    const next = this.starts[i + 1];
    if (next) return position <= next.after ? 'in-log' : 'other-epoch';
    return position <= head ? 'in-log' : 'ahead';
  }
}

function randomEpoch(): Epoch {
  return epochOf(randomInt(2 ** 30));
}
