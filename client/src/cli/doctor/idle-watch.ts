import type { FeedError } from '../../errors.js';
import type { Call } from '../../grpc/call.js';
import type { Connection } from '../../grpc/connection.js';

/** A watch on which nothing happens, on a connection of its own. */
export interface IdleWatch {
  readonly connection: Connection;
  readonly call: Call;
  /** How it ended, and after how many seconds. */
  ended?: IdleEnd;
  heartbeats: number;
  readonly ids: Set<string>;
}

export interface IdleEnd {
  readonly seconds: number;
  readonly error: FeedError;
  /** True if the whole connection ended, and not only the stream. */
  readonly isConnectionLost: boolean;
}

/** A watch after the silence. */
export interface Outcome extends IdleWatch {
  /** True if an event was stored after the silence, which a watch that lives has got. */
  readonly isTried: boolean;
}

export interface IdleContext {
  readonly seconds: number;
  /** The interval of the heartbeats, in seconds. */
  readonly heartbeat: number;
  /** The other watch, to tell what ends idle streams from what ends all. */
  readonly other: Outcome;
  /** True for the watch that had heartbeats. */
  readonly isBeating: boolean;
}

/** True if the watch has not ended, and the event never came to it. */
export function isSilent({ ended, isTried, ids }: Outcome): boolean {
  return !ended && isTried && ids.size === 0;
}
