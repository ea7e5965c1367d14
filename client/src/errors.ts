/** The names of gRPC's statuses, by their numbers. */
export const STATUSES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
] as const;

/** The name of a gRPC status, such as `UNAVAILABLE`. */
export type Status = (typeof STATUSES)[number];

/** The details of a FeedError besides its status and message. */
interface FeedErrorDetails {
  /** Why, in one word: the `reason` of the server's google.rpc.ErrorInfo. docs/protocol.md has the table. */
  readonly reason?: string;
  /** The metadata of the server's ErrorInfo, such as `received` or `earliest`. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
  /** True if another call may succeed, false if none will. Without it, `reason` and `status` decide. */
  readonly retry?: boolean;
}

/** A call that failed. Branch on `reason` and `status`; `message` is for people. */
export class FeedError extends Error {
  override readonly name: string = 'FeedError';
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** @internal */
  readonly retry: boolean | undefined;

  constructor(
    /** The gRPC status, such as `UNAVAILABLE`. */
    readonly status: Status,
    message: string,
    { reason, metadata = {}, cause, retry }: FeedErrorDetails = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
    this.metadata = metadata;
    this.retry = retry;
  }
}

/** Retention removed the events after the cursor before they were read. */
export class CursorExpiredError extends FeedError {
  override readonly name = 'CursorExpiredError';

  /**
   * A watch after this cursor begins with the oldest event that the topic still holds. Of several topics, all events after it are held,
   * and some before it may be.
   */
  get earliest(): string {
    return this.metadata.earliest;
  }
}

/** The log was lost or restored from a copy: the cursor is of a history that this log does not have. */
export class EpochChangedError extends FeedError {
  override readonly name = 'EpochChangedError';
}

/** The server does not know the caller (UNAUTHENTICATED), or does not let it do this (PERMISSION_DENIED). */
export class ForbiddenError extends FeedError {
  override readonly name = 'ForbiddenError';
}

/** How far an upload came before it failed. */
interface UploadFailure {
  /** The number of events that are stored: the first ones of the source. */
  readonly stored: number;
  /**
   * The number of events in doubt, which follow the stored ones: they were sent, and may be stored or not. After
   * `DEDUP_WINDOW_PASSED`, the server would no longer recognize them if they were sent again.
   */
  readonly unknown: number;
  /** The index of the event that the server refused, counted from 0, if it refused one. */
  readonly index?: number;
}

/** An upload that failed. Of its source, at most the first `stored + unknown` events are stored. */
export class UploadError extends FeedError implements UploadFailure {
  override readonly name = 'UploadError';
  readonly stored: number;
  readonly unknown: number;
  readonly index: number | undefined;

  constructor(cause: FeedError, { stored, unknown, index }: UploadFailure) {
    const known = unknown > 0 ? `, and it is unknown whether the next ${unknown} are` : '';
    super(cause.status, `${cause.message} (the first ${stored} events are stored${known})`, {
      reason: cause.reason,
      metadata: cause.metadata,
      cause,
    });
    this.stored = stored;
    this.unknown = unknown;
    this.index = index;
  }
}

/** Makes the error of a call that ended with this status, of the class for its reason. */
export function feedError(status: Status, message: string, details: FeedErrorDetails): FeedError {
  if (status === 'UNAUTHENTICATED' || status === 'PERMISSION_DENIED')
    return new ForbiddenError(status, message, details);
  if (details.reason === 'CURSOR_EXPIRED') return new CursorExpiredError(status, message, details);
  if (details.reason === 'EPOCH_CHANGED') return new EpochChangedError(status, message, details);
  return new FeedError(status, message, details);
}

/** Reasons that count more than the status: true if the same call may succeed later. */
const RETRY_BY_REASON: Readonly<Record<string, boolean>> = {
  TOKEN_EXPIRED: true,
  // The next connection shows the certificate that is in the files then.
  CERTIFICATE_EXPIRED: true,
  TOO_MANY_ROOMS: false,
  COMPRESSION_INVALID: false,
  ENDED_BY_OPERATOR: false,
};

/**
 * Statuses that say that the call itself is wrong, so that the same call fails again. DEADLINE_EXCEEDED is none of them: an upload
 * looks after its own deadline, and any other was set by a proxy.
 */
const GIVE_UP: ReadonlySet<Status> = new Set([
  'INVALID_ARGUMENT',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'FAILED_PRECONDITION',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'DATA_LOSS',
  'UNAUTHENTICATED',
]);

/** True if a server ended the call so that another one takes it over (FEED_MAX_CONNECTION_AGE). That is no failure. */
export function hasMoved({ reason }: FeedError): boolean {
  return reason === 'MOVED';
}

/** True if the same call may succeed later: the server is away, busy, full, or a proxy cut the call. */
export function isRetryable(error: unknown): error is FeedError {
  if (!(error instanceof FeedError)) return false;
  return error.retry ?? RETRY_BY_REASON[error.reason ?? ''] ?? !GIVE_UP.has(error.status);
}
