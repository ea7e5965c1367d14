import type { FeedError } from '../../errors.js';
import type { Call } from '../../grpc/call.js';
import type { Connection } from '../../grpc/connection.js';

/** A watch of a topic in which no events are stored, on a connection of its own. */
export interface IdleWatch {
  readonly connection: Connection;
  readonly call: Call;
  /** Undefined while the watch lives. */
  ended?: IdleEnd;
  /** The number of heartbeats that came. */
  heartbeats: number;
  /** The ids of the events that came. */
  readonly ids: Set<string>;
}

/** How a watch ended. */
export interface IdleEnd {
  /** The time from its start to its end. */
  readonly seconds: number;
  readonly error: FeedError;
  /** True if the whole connection ended, and not only the stream. */
  readonly isConnectionLost: boolean;
}

/** A watch after the silence. */
export interface Outcome extends IdleWatch {
  /** True if an event was stored after the silence. A watch that still works has received it. */
  readonly isTried: boolean;
}

/** The circumstances of one of the two idle watches. Its finding depends on them and on the watch itself. */
export interface IdleContext {
  /** How long the watches were to be idle. */
  readonly seconds: number;
  /** The interval of the heartbeats, in seconds. */
  readonly heartbeat: number;
  /** The other watch: if it lives, only idle streams are ended; if not, all are. */
  readonly other: Outcome;
  /** True for the watch that had heartbeats. */
  readonly hasHeartbeats: boolean;
}

/** True if the watch has not ended, and the event never came to it. */
export function isSilent({ ended, isTried, ids }: Outcome): boolean {
  return !ended && isTried && ids.size === 0;
}
