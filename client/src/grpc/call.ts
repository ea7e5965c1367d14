import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from 'node:http2';
import { LONGEST_TIMER } from '../clock.js';
import { FeedError } from '../errors.js';
import { MessageSplitter } from './frames.js';
import { errorOfHttpStatus, errorOfReset, errorOfTrailers } from './status.js';

/** The server's largest event (FEED_MAX_EVENT_BYTES), at most, is 3 MiB. */
const MAX_MESSAGE_BYTES = 4 * 2 ** 20;

/** A call takes this many bytes ahead of its reader. Beyond them, and beyond HTTP/2's window, they stay at the server. */
const READ_AHEAD_BYTES = 64 * 2 ** 10;

/** What a call knows of its connection. */
export interface CallConnection {
  readonly address: string;
  /** Why the connection ended, once it has. */
  readonly failure: FeedError | undefined;
  /** Makes the next calls use another connection. */
  retire(): void;
}

/** One call: frames go out, messages come in, and it ends with a status. */
export class Call {
  private readonly splitter = new MessageSplitter(MAX_MESSAGE_BYTES);
  private messages: Buffer[] = [];
  private unreadBytes = 0;
  private responseHeaders: IncomingHttpHeaders | undefined;
  private trailers: IncomingHttpHeaders | undefined;
  private hasEnded = false;
  /** How the call ended: `error` is undefined for OK. */
  private outcome: { readonly error: FeedError | undefined } | undefined;
  /** Wake whoever waits in headers(), read() or write(). They look again. */
  private readonly waiting = new Set<() => void>();
  private silenceTimer: NodeJS.Timeout | undefined;
  private markEnded!: () => void;
  /** Resolves when the call has ended, however it did. */
  readonly ended = new Promise<void>((resolve) => (this.markEnded = resolve));

  constructor(
    private readonly stream: ClientHttp2Stream,
    private readonly connection: CallConnection,
    private readonly onEnd: (error: FeedError | undefined) => void,
  ) {
    stream.on('response', (headers) => {
      this.responseHeaders = headers;
      // An answer of headers alone: its headers are the trailers.
      if (headers['grpc-status'] !== undefined) this.finish(errorOfTrailers(headers));
      else if (isWholeAnswer(headers))
        this.finish(errorOfHttpStatus(Number(headers[':status']), connection.address));
      this.wake();
    });
    stream.on('data', (chunk: Buffer) => this.take(chunk));
    stream.on('trailers', (trailers) => {
      this.trailers = trailers;
      this.finishIfWhole();
    });
    stream.on('end', () => {
      this.hasEnded = true;
      this.finishIfWhole();
    });
    stream.on('drain', () => this.wake());
    stream.on('error', () => {}); // 'close' follows, with all that is to be known
    stream.on('close', () => this.finish(this.errorAtClose()));
  }

  /**
   * Resolves with the response headers.
   *
   * @throws FeedError if the call ends before them
   */
  async headers(): Promise<IncomingHttpHeaders> {
    while (!this.responseHeaders || isWholeAnswer(this.responseHeaders)) {
      if (this.outcome) throw this.outcome.error ?? endedEarly(this.connection.address);
      await this.change();
    }
    return this.responseHeaders;
  }

  /**
   * Resolves with the messages that have come and were not read yet, in order and at least one; with undefined once the
   * call has ended with OK.
   *
   * @throws FeedError if the call ends with another status. Messages that came before are handed out first.
   */
  async read(): Promise<Buffer[] | undefined> {
    while (this.messages.length === 0) {
      if (this.outcome) {
        if (this.outcome.error) throw this.outcome.error;
        return undefined;
      }
      await this.change();
    }
    const { messages } = this;
    this.messages = [];
    this.unreadBytes = 0;
    if (!this.outcome) this.stream.resume();
    return messages;
  }

  /**
   * Sends frames. Resolves when flow control has room for more.
   *
   * @throws FeedError if the call has ended
   */
  async write(frames: Buffer): Promise<void> {
    if (!this.outcome && this.stream.write(frames)) return;
    for (;;) {
      if (this.outcome) throw this.outcome.error ?? endedEarly(this.connection.address);
      if (!this.stream.writableNeedDrain) return;
      await this.change();
    }
  }

  /** Ends this side of the call. The server's answer may still come. */
  end(): void {
    this.stream.end();
  }

  /** Cancels the call unless it has ended. Whoever waits for it gets `error`. */
  cancel(error = new FeedError('CANCELLED', 'the call was cancelled')): void {
    this.finish(error);
  }

  /**
   * Gives the call up when nothing at all has come for so long while somebody waited for it.
   *
   * @param milliseconds 0 waits for ever
   */
  endAfterSilence(milliseconds: number): void {
    clearTimeout(this.silenceTimer);
    if (milliseconds === 0 || this.outcome) return;
    this.silenceTimer = setTimeout(
      () => {
        // With no one waiting, the stream may be paused: then it is the reader who is silent.
        if (this.waiting.size === 0) {
          this.silenceTimer?.refresh();
          return;
        }
        const { address } = this.connection;
        const message = `nothing came from ${address} for ${milliseconds / 1_000} s`;
        this.connection.retire(); // The connection may be dead: keepalive finds that later than this stream did.
        this.cancel(new FeedError('UNAVAILABLE', message));
      },
      Math.min(milliseconds, LONGEST_TIMER),
    );
  }

  private take(chunk: Buffer): void {
    this.silenceTimer?.refresh();
    try {
      for (const message of this.splitter.push(chunk)) this.messages.push(message);
    } catch (error) {
      this.finish(error as FeedError);
      return;
    }
    this.unreadBytes += chunk.length;
    // A reader that waits takes what has come in this turn.
    if (this.unreadBytes >= READ_AHEAD_BYTES) this.stream.pause();
    if (this.messages.length > 0) this.wake();
    // Part of a message larger than the read-ahead: no one can read it before the rest of it has come.
    else if (this.stream.isPaused()) this.stream.resume();
  }

  /** A server may end a call before the client has, so the stream need not close by itself. */
  private finishIfWhole(): void {
    if (this.hasEnded && this.trailers) this.finish(errorOfTrailers(this.trailers));
  }

  private errorAtClose(): FeedError | undefined {
    if (this.trailers) return errorOfTrailers(this.trailers);
    return this.connection.failure ?? errorOfReset(this.stream.rstCode, this.connection.address);
  }

  private finish(error: FeedError | undefined): void {
    if (this.outcome) return;
    this.outcome = { error };
    clearTimeout(this.silenceTimer);
    if (!this.stream.closed) this.stream.close(constants.NGHTTP2_CANCEL);
    this.onEnd(error);
    this.markEnded();
    this.wake();
  }

  private change(): Promise<void> {
    // The silence counts from here if no one waited until now.
    if (this.waiting.size === 0) this.silenceTimer?.refresh();
    return new Promise((resolve) => this.waiting.add(resolve));
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }
}

/** True for an answer without messages: a gRPC status alone, or the answer of a server or proxy that is not gRPC's. */
function isWholeAnswer(headers: IncomingHttpHeaders): boolean {
  return (
    headers['grpc-status'] !== undefined ||
    Number(headers[':status']) !== 200 ||
    !headers['content-type']?.startsWith('application/grpc')
  );
}

function endedEarly(address: string): FeedError {
  return new FeedError('INTERNAL', `${address} ended the call with OK before its time`);
}
