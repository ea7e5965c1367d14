import type { Call } from './call.js';

/** What becomes of the calls of a connection that is retired: it gets GOAWAY, and closes after its last call. */
export interface Retirement {
  /** The status of calls that still come on it, ready to send: no exception filter sees those calls. */
  readonly refusal: unknown;
  /** Ends its open calls, in its own time. */
  readonly endCalls: (calls: readonly Call[]) => void;
}
