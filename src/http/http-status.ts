import { FeedError, type Reason } from '../feed/errors.js';
import { STATUS_NAMES, type StatusName } from '../feed/status-names.js';

/** The HTTP status of each status of the contract's error table. */
const HTTP: Readonly<Record<StatusName, number>> = {
  INVALID_ARGUMENT: 400,
  UNAUTHENTICATED: 401,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  FAILED_PRECONDITION: 409,
  ABORTED: 409,
  OUT_OF_RANGE: 410,
  RESOURCE_EXHAUSTED: 429,
  INTERNAL: 500,
  UNIMPLEMENTED: 501,
  UNAVAILABLE: 503,
};

/** The reasons for which HTTP has a status of its own. */
const OWN: Readonly<Partial<Record<Reason, number>>> = { UPLOAD_TOO_LONG: 413, STORAGE_FULL: 507 };

/**
 * The reasons for which the same request may soon be served. A browser that connects again must not be told to stop for one of them
 * (docs/http.md, "Browsers").
 */
const TEMPORARY: ReadonlySet<Reason> = new Set([
  'LIMIT_EXCEEDED',
  'DRAINING',
  'MOVED',
  'STORE_UNAVAILABLE',
  'KEYS_UNAVAILABLE',
]);

export const httpStatus = (reason: Reason): number => OWN[reason] ?? HTTP[STATUS_NAMES[reason]];

/** True for an error after which the same request may soon be served, here or by another replica. */
export const isTemporary = (error: unknown): error is FeedError =>
  error instanceof FeedError && TEMPORARY.has(error.reason);
