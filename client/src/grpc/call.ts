import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from 'node:http2';
import { LONGEST_TIMER } from '../clock.js';
import { FeedError } from '../errors.js';
import { MessageSplitter } from './frames.js';
import { errorOfHttpStatus, errorOfReset, errorOfTrailers } from './status.js';

/** More than any message of a server: FEED_MAX_EVENT_BYTES is at most 3 MiB. */
const MAX_MESSAGE_BYTES = 4 * 2 ** 20;

/**
 * A call that holds this many bytes that nobody has read pauses its stream until its status comes. HTTP/2's window then keeps the
 * rest at the server.
 */
const READ_AHEAD_BYTES = 64 * 2 ** 10;

/** The parts of its connection that a call uses. */
export interface CallConnection {
  /** The server's, for messages: `host:port`. */
  readonly address: string;
  /** When (now() of clock.ts) the connection was opened: its server had answered by then. */
  readonly openedAt: number;
  /** Why the connection ended, once it has. */
  readonly failure: FeedError | undefined;
  /** Makes the next calls use another connection. */
  retire(): void;
}

/** Learns how a server answers a call. */
export interface CallObserver {
  /** The server has taken the call: its response headers have come. */
  answered(): void;
  /** The call has failed. Returns the error to report, which may be the same. */
  failed(error: FeedError): FeedError;
}

/** One call: frames go out, messages come in, and it ends with a status. */
export class Call {
  private readonly splitter = new MessageSplitter(MAX_MESSAGE_BYTES);
  private messages: Buffer[] = [];
  private unreadBytes = 0;
  /** How often data has come. */
  private chunks = 0;
  private responseHeaders: IncomingHttpHeaders | undefined;
  private trailers: IncomingHttpHeaders | undefined;
  /** All of the server's data has come. */
  private hasAllData = false;
  /** How the call ended, once it has: `error` is undefined for OK. */
  private outcome: { readonly error: FeedError | undefined } | undefined;
  /** Those that wait in headers(), read() or write() for a change. Woken by wake(), they look at the call's state again. */
  private readonly waiting = new Set<() => void>();
  private silenceTimer: NodeJS.Timeout | undefined;
  private markEnded!: (error: FeedError | undefined) => void;
  /** Resolves when the call has ended, with its error, or undefined for OK. */
  readonly ended = new Promise<FeedError | undefined>((resolve) => (this.markEnded = resolve));

  /** @param onEnd is called once, with the error, or undefined for OK */
  constructor(
    private readonly stream: ClientHttp2Stream,
    private readonly connection: CallConnection,
    private readonly onEnd: (error: FeedError | undefined) => void,
    private readonly observer?: CallObserver,
  ) {
    stream.on('response', (headers) => {
      this.responseHeaders = headers;
      // An answer without messages has its status in its headers (gRPC's "Trailers-Only").
      if (headers['grpc-status'] !== undefined) this.finish(errorOfTrailers(headers));
      else if (hasNoMessages(headers))
        this.finish(errorOfHttpStatus(Number(headers[':status']), connection.address));
      else this.observer?.answered();
      this.wake();
    });
    stream.on('data', (chunk: Buffer) => this.take(chunk));
    stream.on('trailers', (trailers) => {
      this.trailers = trailers;
      // Node drops what is unread when the connection closes. All of it is in this process by now: at most the stream's window.
      stream.resume();
      this.finishIfAnswered();
    });
    stream.on('end', () => {
      this.hasAllData = true;
      this.finishIfAnswered();
    });
    stream.on('drain', () => this.wake());
    stream.on('error', () => {}); // 'close' follows, and the stream then knows why it ended.
    stream.on('close', () => this.finish(this.errorAtClose()));
  }

  /** When (now() of clock.ts) the call's connection was opened. */
  get connectedAt(): number {
    return this.connection.openedAt;
  }

  /**
   * Resolves with the response headers.
   *
   * @throws FeedError if the call ends before they come
   */
  async headers(): Promise<IncomingHttpHeaders> {
    while (!this.responseHeaders || hasNoMessages(this.responseHeaders)) {
      if (this.outcome) throw this.outcome.error ?? endedEarly(this.connection.address);
      await this.change();
    }
    return this.responseHeaders;
  }

  /**
   * Resolves with the messages that have come and were not read yet, at least one, in order; with undefined once the call has
   * ended with OK. Messages that came before the end are handed out first.
   *
   * @throws FeedError if the call ended with another status
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

  /** Ends the client's side of the call (half-close). The server's messages and status may still come. */
  end(): void {
    this.stream.end();
  }

  /** Cancels the call unless it has ended. headers(), read() and write() then throw `error`. */
  cancel(error = new FeedError('CANCELLED', 'the call was cancelled')): void {
    this.finish(error);
  }

  /**
   * Ends the call with UNAVAILABLE when nothing has come for this many milliseconds while headers(), read() or write() waited.
   * New calls then use another connection.
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
        const { chunks } = this;
        // If this process stood still, something may be there that node has not read. An immediate runs after node has.
        setImmediate(() => {
          if (this.chunks === chunks && this.waiting.size > 0) this.endSilent(milliseconds);
        });
      },
      Math.min(milliseconds, LONGEST_TIMER),
    );
  }

  /** Ends the call with UNAVAILABLE, because nothing came for this many milliseconds. New calls then use another connection. */
  endSilent(milliseconds: number): void {
    if (this.outcome) return;
    const { address } = this.connection;
    const message = `nothing came from ${address} for ${milliseconds / 1_000} s`;
    this.connection.retire(); // The connection may be dead: keepalive finds that later than this stream did.
    this.cancel(new FeedError('UNAVAILABLE', message));
  }

  private take(chunk: Buffer): void {
    this.chunks++;
    this.silenceTimer?.refresh();
    try {
      for (const message of this.splitter.push(chunk)) this.messages.push(message);
    } catch (error) {
      this.finish(error as FeedError);
      return;
    }
    this.unreadBytes += chunk.length;
    // read() resumes the stream when it takes what has come.
    if (this.unreadBytes >= READ_AHEAD_BYTES && !this.trailers) this.stream.pause();
    if (this.messages.length > 0) this.wake();
    // The stream holds part of a message that is larger than the read-ahead: nobody can read it before the rest has come.
    else if (this.stream.isPaused()) this.stream.resume();
  }

  /** Ends the call once the answer is complete: the stream does not close by itself while the client's side is open. */
  private finishIfAnswered(): void {
    if (this.hasAllData && this.trailers) this.finish(errorOfTrailers(this.trailers));
  }

  private errorAtClose(): FeedError | undefined {
    // A status is of a call whose messages have all come: a watch, for example, goes on after the last of them.
    if (this.trailers && this.stream.readableLength === 0) return errorOfTrailers(this.trailers);
    return this.connection.failure ?? errorOfReset(this.stream.rstCode, this.connection.address);
  }

  private finish(error: FeedError | undefined): void {
    if (this.outcome) return;
    this.outcome = { error: error && (this.observer?.failed(error) ?? error) };
    clearTimeout(this.silenceTimer);
    if (!this.stream.closed) this.stream.close(constants.NGHTTP2_CANCEL);
    // Node keeps a stream that the server has ended until all of it is read, and the connection with it.
    else this.stream.destroy();
    this.onEnd(error);
    this.markEnded(this.outcome.error);
    this.wake();
  }

  /** Resolves when something has come, has been sent, or has ended. */
  private change(): Promise<void> {
    // The silence counts from now on, if nobody waited until now.
    if (this.waiting.size === 0) this.silenceTimer?.refresh();
    return new Promise((resolve) => this.waiting.add(resolve));
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }
}

/** True for the headers of an answer without messages: they have a gRPC status, or are of a server that does not speak gRPC. */
function hasNoMessages(headers: IncomingHttpHeaders): boolean {
  return (
    headers['grpc-status'] !== undefined ||
    Number(headers[':status']) !== 200 ||
    !headers['content-type']?.startsWith('application/grpc')
  );
}

function endedEarly(address: string): FeedError {
  return new FeedError('INTERNAL', `${address} ended the call with OK before the client did`);
}
