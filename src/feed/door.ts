import type { FeedError } from './errors.js';

/** A way in for clients, such as gRPC, as the drain sees it. */
export interface Door {
  /** From now on takes no new connections, and ends calls that still come with this reason. */
  stopAccepting(reason: FeedError): void;
  /** Closes the connections on which calls are still open, because their clients do not read how those ended. */
  closeUnread(): void;
}
