import { randomInt } from 'node:crypto';
import { type Cursor, type Epoch, epochOf, type Position } from '../wire/cursor.js';
import type { CursorPlace } from './event-repository.js';

/** An epoch and the position after which it began: what it wrote is beyond that. */
export interface EpochStart {
  readonly epoch: Epoch;
  readonly after: Position;
}

/**
 * The epochs of one log, oldest first. Positions go on through them; an epoch says which history wrote a
 * position, so that a cursor from another history is not taken for one of this log.
 */
export class Epochs {
  constructor(readonly starts: readonly EpochStart[]) {}

  /** With a new epoch for what is written after a position. */
  begun(after: Position): Epochs {
    // One that wrote nothing is in no cursor, but for the first: 0 is a position before all events.
    const starts = this.starts.filter((start, i) => i === 0 || start.after < after);
    return new Epochs([...starts, { epoch: randomEpoch(), after }]);
  }

  get current(): Epoch {
    return this.starts[this.starts.length - 1].epoch;
  }

  cursorAt(position: Position): Cursor {
    let i = this.starts.length - 1;
    while (i > 0 && this.starts[i].after >= position) i--;
    return { epoch: this.starts[i].epoch, position };
  }

  locate({ epoch, position }: Cursor, head: Position): CursorPlace {
    const i = this.starts.findIndex((start) => start.epoch === epoch);
    if (i < 0) return 'other-epoch';
    if (i > 0 && position <= this.starts[i].after) return 'other-epoch';
    const next = this.starts[i + 1];
    if (next) return position <= next.after ? 'in-log' : 'other-epoch';
    return position <= head ? 'in-log' : 'ahead';
  }
}

function randomEpoch(): Epoch {
  return epochOf(randomInt(2 ** 30));
}
