import { FeedError, feedError } from './errors.js';
import type { CallObserver } from './grpc/call.js';
import { readSettingFile } from './setting-file.js';

/** A token, the file that has it, or a function that returns it. Files and functions are asked for each call. */
export type Token = string | { readonly file: string } | (() => string | Promise<string>);

/** The client gives up once the server has refused this many tokens in a row, none of which it ever took. */
const MAX_REFUSED = 2;

/** One call's use of a token. */
export interface TokenUse {
  readonly token: string;
  /** Learns what the server says about the token. */
  readonly observer: CallObserver;
}

/**
 * The token of a client's calls. If the server refuses a token, the error says whether another call may be made, because the
 * file or function may give another token:
 * - a token that the server took before has expired: yes, however long the next one takes;
 * - a token that the server never took: yes for the first one in a row, no for the second;
 * - a fixed token: no.
 */
export class TokenSource {
  /** The token that the server took last. */
  private taken: string | undefined;
  /** How many tokens in a row the server has refused that it never took before. */
  private refused = 0;

  constructor(private readonly source: Token) {}

  /** Asks for the token of the next call. @throws what the file or function fails with */
  async next(): Promise<TokenUse> {
    const token = (await this.ask()).trim();
    const { refused } = this;
    let isTaken = false;
    const answered = (): void => {
      isTaken = true;
      this.taken = token;
      this.refused = 0;
    };
    const failed = (error: FeedError): FeedError => {
      if (error.status !== 'UNAUTHENTICATED' || error.reason === 'CERTIFICATE_EXPIRED')
        return error;
      if (isTaken || token === this.taken) return this.expired(error);
      // Calls that began together count once.
      if (refused === this.refused) this.refused++;
      return this.refusedNew(error);
    };
    return { token, observer: { answered, failed } };
  }

  private async ask(): Promise<string> {
    const { source } = this;
    if (typeof source === 'string') return source;
    if (typeof source === 'function') return source();
    return String(await readSettingFile('the file of the token', source.file));
  }

  private expired(error: FeedError): FeedError {
    if (typeof this.source !== 'string') return withRetry(error, true, error.message);
    const message = `${error.message} (the client has a fixed token: give it a file or a function, which can be asked for another)`;
    return withRetry(error, false, message);
  }

  private refusedNew(error: FeedError): FeedError {
    if (typeof this.source === 'string') return withRetry(error, false, error.message);
    if (this.refused < MAX_REFUSED) return withRetry(error, true, error.message);
    const message = `${error.message} (the server has refused ${MAX_REFUSED} new tokens in a row)`;
    return withRetry(error, false, message);
  }
}

function withRetry(cause: FeedError, retry: boolean, message: string): FeedError {
  const { status, reason, metadata } = cause;
  return feedError(status, message, { reason, metadata, cause, retry });
}
