import type { StoredRun } from './stored-run.js';

/** What one commit stores. */
export interface Commit {
  /** Runs at consecutive positions. */
  readonly runs: readonly StoredRun[];
  /**
   * The hash of each event's (topic, id), in two halves, in the order of positions; 0 and 0 where the server made the
   * id. Empty if ids are not remembered.
   */
  readonly ids: readonly Uint32Array[];
}

/** A commit that stores nothing, because there is only something to remove. */
export const NOTHING_TO_STORE: Commit = { runs: [], ids: [] };
