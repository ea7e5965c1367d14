import { Problem } from './problem.ts';
import { isSignedOut, lostSince } from './state.ts';

/** The server did not answer: it is away, or something between it and this page is. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable';
}

/** The statuses with which a proxy says that the server behind it does not answer. */
const FROM_PROXIES = new Set([502, 503, 504]);

/** How often the reader has signed in. */
let signIns = 0;

/**
 * Returns the address of a path of docs/http.md, such as `topics/orders`. It is relative to the page's own, so that a proxy
 * may add a prefix to both.
 */
export function address(
  path: string,
  query: Record<string, string | number | boolean | undefined> = {},
): URL {
  const url = new URL(`../v1/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query))
    if (value !== undefined && value !== '') url.searchParams.append(name, String(value));
  return url;
}

/**
 * Makes a request, and returns the answer if its status is a good one. Throws `Problem` if the server refuses, `Unreachable`
 * if it does not answer, and the signal's reason if that is aborted.
 */
export async function request(url: URL, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  const before = signIns;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (init.signal?.aborted && !isTimeout(init.signal)) throw error;
    throw lost();
  }
  if (response.ok) {
    // The server answers with JSON. A page of HTML is of something between, such as a network that wants a login.
    if (response.status !== 204 && !isJson(response)) throw lost();
    lostSince.value = undefined;
    return response;
  }
  const problem = await problemOf(response);
  if (problem.reason === '' && FROM_PROXIES.has(problem.status)) throw lost();
  lostSince.value = undefined;
  // A request from before the reader signed in may be refused after that, and says nothing of the new token.
  if (lacksToken(problem) && signIns === before) isSignedOut.value = true;
  throw problem;
}

/** False where the browser's certificate has ended: a new connection shows the one that it has now. */
const lacksToken = ({ status, reason }: Problem): boolean =>
  status === 401 && reason !== 'CERTIFICATE_EXPIRED';

/** Notes that no token is missing any more. */
export function noteSignIn(): void {
  signIns++;
  isSignedOut.value = false;
}

/** Notes that the server is away, and returns the error that says so. */
export function lost(): Unreachable {
  lostSince.value ??= new Date();
  return new Unreachable('the server does not answer');
}

const isTimeout = (signal: AbortSignal): boolean =>
  signal.reason instanceof DOMException && signal.reason.name === 'TimeoutError';

/** How long (milliseconds) an answer that is one JSON object may take. */
const ANSWER_TIMEOUT = 10_000;

/** Asks for a JSON object. Throws what `request` does. */
export async function json<T>(url: URL, signal?: AbortSignal, init: RequestInit = {}): Promise<T> {
  const timeout = AbortSignal.timeout(ANSWER_TIMEOUT);
  const response = await request(url, {
    ...init,
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  });
  return bodyOf<T>(response, signal);
}

/** Reads the JSON object of an answer. The connection may break, or the time run out, after the headers. Throws what `request` does. */
export async function bodyOf<T>(response: Response, signal?: AbortSignal): Promise<T> {
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw lost();
  }
}

const isJson = (response: Response): boolean =>
  response.headers.get('content-type')?.includes('json') ?? false;

async function problemOf(response: Response): Promise<Problem> {
  const body: unknown = isJson(response) ? await response.json().catch(() => ({})) : {};
  return toProblem(body, response.status);
}

/** The fields of a problem that are no metadata of its reason. */
const OWN = new Set(['type', 'title', 'status', 'detail', 'reason']);

/** Reads a problem as docs/http.md, "Errors", has it. `status` is that of the answer, for one that names none. */
export function toProblem(body: unknown, status = 500): Problem {
  const fields = body as Record<string, string>;
  const { title, status: own, detail, reason } = fields;
  const metadata = Object.fromEntries(Object.entries(fields).filter(([name]) => !OWN.has(name)));
  const code = Number(own ?? status);
  return new Problem(code, reason ?? '', detail ?? title ?? `HTTP status ${code}`, metadata);
}
