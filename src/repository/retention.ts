/** How much a log keeps; 0 for no limit. What is over it is removed from the old end. */
export interface RetentionLimits {
  /** Milliseconds of the log's own time. */
  readonly maxAge: number;
  /** Bytes of stored events, over all topics. */
  readonly maxBytes: number;
  /** Bytes of stored events of each topic. */
  readonly topicMaxBytes: number;
}

export const KEEP_ALL: RetentionLimits = { maxAge: 0, maxBytes: 0, topicMaxBytes: 0 };

/** How often (milliseconds) an idle log looks for events that have become too old. */
export const RETENTION_INTERVAL = 1_000;
