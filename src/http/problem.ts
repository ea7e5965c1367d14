import {
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import { FeedError } from '../feed/errors.js';
import { answer } from './answer.js';
import { httpStatus, isTemporary } from './http-status.js';

/** A request that HTTP itself refuses: it has a status and no reason of the contract. */
export class HttpRefusal extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly headers: OutgoingHttpHeaders = {},
  ) {
    super(message);
  }
}

/** Why a request was not served, as RFC 9457 has it. Metadata of the contract's error table stand beside the other members. */
export interface Problem {
  readonly type: 'about:blank';
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  /** A Reason; missing where HTTP itself refuses. */
  readonly reason?: string;
  readonly [metadata: string]: unknown;
}

/** A client whose request fails with a temporary error should come back after this many seconds. */
const RETRY_AFTER = 2;

/** Describes an error to the client. The message of an unexpected error goes to the log alone. */
export function problemOf(error: unknown): Problem {
  const type = 'about:blank';
  if (error instanceof FeedError) {
    const { reason, message, metadata } = error;
    const status = httpStatus(reason);
    const title = titleOf(status);
    return { type, title, status, detail: message.toWellFormed(), reason, ...metadata };
  }
  const status = error instanceof HttpRefusal ? error.status : 500;
  const detail =
    error instanceof HttpRefusal ? error.message : 'the service has a fault: its log says more';
  return { type, title: titleOf(status), status, detail };
}

/** RFC 9110 has these names; node still has older ones. */
const TITLES: Readonly<Record<number, string>> = { 413: 'Content Too Large' };

const titleOf = (status: number): string => TITLES[status] ?? STATUS_CODES[status] ?? 'Error';

/** Answers with an error, unless something was answered before. */
export function sendProblem(
  request: IncomingMessage,
  response: ServerResponse,
  error: unknown,
): void {
  const problem = problemOf(error);
  answer(request, response, problem.status, JSON.stringify(problem), {
    'content-type': 'application/problem+json',
    ...(problem.status === 401 && { 'www-authenticate': 'Bearer' }),
    ...(isTemporary(error) && { 'retry-after': String(RETRY_AFTER) }),
    ...(error instanceof HttpRefusal && error.headers),
  });
}
