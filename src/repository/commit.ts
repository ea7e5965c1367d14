import type { StoredRun } from './stored-run.js';

/** The runs and ids that one commit stores. */
export interface Commit {
  /** Runs at rising positions; at consecutive ones, if only this process writes to the log. */
  readonly runs: readonly StoredRun[];
  /**
   * The IdHash of each event, in the order of positions, as two numbers: the high half and the low half. Both are 0 where
   * the server made the id. Empty if ids are not remembered.
   */
  readonly ids: readonly Uint32Array[];
}

/** A commit that stores nothing, because there is only something to remove. */
export const NOTHING_TO_STORE: Commit = { runs: [], ids: [] };
