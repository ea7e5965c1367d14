import type { Call } from './call.js';

/** How the calls of a connection end that is retired. It gets GOAWAY, and closes after its last call. */
export interface Retirement {
  /** The status of calls that still come on it, ready to send: no exception filter sees those calls. */
  readonly refusal: unknown;
  /** Ends its open calls, in its own time. */
  readonly endCalls: (calls: readonly Call[]) => void;
}
