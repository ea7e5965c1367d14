import { FeedError } from './errors.js';
import type { Call } from './grpc/call.js';
import type { Servers } from './grpc/servers.js';
import { type Token, TokenSource } from './token.js';
import { withTrace } from './trace.js';

/**
 * The metadata that a client sends with each call. Files are read and functions called for each call, so that tokens can be
 * renewed; if that fails, the call is tried again.
 */
export interface CallMetadata {
  /**
   * Sent as `authorization: Bearer <token>`, without the white space around it that files have. When a token has expired, calls
   * go on with the next one that the file or function gives. The client gives up when the server refuses two new ones in a row.
   */
  readonly token?: Token;
  /** Sent as they are. Names are lower-case; if a name ends in `-bin`, its value is base64. */
  readonly metadata?:
    | Readonly<Record<string, string>>
    | (() => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>);
}

/** The methods of the contract, each with its service. */
const SERVICE_OF = {
  Watch: 'FeedService',
  UploadEvents: 'FeedService',
  Chat: 'FeedService',
  ListTopics: 'FeedAdmin',
  GetTopic: 'FeedAdmin',
  DeleteTopic: 'FeedAdmin',
  ListStreams: 'FeedAdmin',
  EndStream: 'FeedAdmin',
  Backup: 'FeedAdmin',
} as const;

export type Method = keyof typeof SERVICE_OF;

interface OpenCallOptions {
  /** The call's deadline, in milliseconds from its start. The server ends it then with DEADLINE_EXCEEDED. */
  readonly timeout?: number;
  /** One of Servers.addressesNow(), which the call is made to. Without it, calls take turns over the servers. */
  readonly server?: string;
}

/**
 * Connects where needed, and starts a call, which the signal cancels.
 *
 * @throws FeedError UNAVAILABLE if no server can be reached, CANCELLED if the signal fires
 */
export type OpenCall = (
  method: Method,
  signal: AbortSignal,
  options?: OpenCallOptions,
) => Promise<Call>;

const USER_AGENT = `feed-client node/${process.versions.node}`;

/** Returns the function by which a client opens its calls. */
export function callOpener(servers: Servers, callMetadata: CallMetadata): OpenCall {
  const { token, metadata } = callMetadata;
  const tokens = token === undefined ? undefined : new TokenSource(token);
  return async (method, signal, { timeout, server } = {}) => {
    const start = async (): Promise<Call> => {
      // UNAVAILABLE, so that the call is tried again: the source of tokens may be away for a while, as a server may.
      const failed = (cause: unknown): never => {
        const message = `the file or function of the option token or metadata failed: ${String(cause)}`;
        throw new FeedError('UNAVAILABLE', message, { cause });
      };
      const headers = await headersOf({ metadata }).catch(failed);
      const use = await tokens?.next().catch(failed);
      if (use) headers.authorization = `Bearer ${use.token}`;
      checkHeaders(headers);
      if (timeout !== undefined) headers['grpc-timeout'] = `${Math.max(1, Math.round(timeout))}m`;
      const path = `/feed.v1.${SERVICE_OF[method]}/${method}`;
      const call = await servers.call(path, withTrace(headers), use?.observer, server);
      const cancel = (): void => call.cancel();
      signal.addEventListener('abort', cancel);
      void call.ended.then(() => signal.removeEventListener('abort', cancel));
      if (signal.aborted) cancel();
      return call;
    };
    return orAborted(start(), signal);
  };
}

/**
 * Checks the headers of a call. Servers drop a header that HTTP/2 does not allow, and say nothing: the call would then go on
 * without its token.
 *
 * @throws FeedError INVALID_ARGUMENT, without the value, which may be a secret
 */
function checkHeaders(headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) {
    if (/^[\w.-]+$/.test(name) && /^[\x20-\x7e]*$/.test(value)) continue;
    const message = `the header "${name}" can't be sent: names are letters, digits, "_", "." and "-", and values are printable ASCII`;
    throw new FeedError('INVALID_ARGUMENT', message);
  }
}

/** Returns the headers that the client adds to a call: the user agent, the metadata and the token. */
export async function headersOf({
  token,
  metadata,
}: CallMetadata): Promise<Record<string, string>> {
  const headers: Record<string, string> = { 'user-agent': USER_AGENT };
  Object.assign(headers, typeof metadata === 'function' ? await metadata() : metadata);
  if (token !== undefined) {
    const use = await new TokenSource(token).next();
    headers.authorization = `Bearer ${use.token}`;
  }
  return headers;
}

/** Resolves as `work` does, or rejects with CANCELLED as soon as the signal fires. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: () => void;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(new FeedError('CANCELLED', 'the call was cancelled'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort!);
  }
}
