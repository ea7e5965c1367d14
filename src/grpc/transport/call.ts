import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  Metadata,
  type ServerDuplexStream,
  type ServerWritableStream,
  status,
} from '@grpc/grpc-js';
import type { Connection } from './connection.js';
import { whenUnread } from './unread.js';

export type GrpcCall =
  ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>;

/** The transport aborted a call, which ends with this status. */
export class CallAborted extends Error {
  constructor(
    readonly code: status.CANCELLED | status.DEADLINE_EXCEEDED | status.RESOURCE_EXHAUSTED,
    message: string,
  ) {
    super(message);
  }
}

const deadlineExceeded = (): CallAborted =>
  new CallAborted(status.DEADLINE_EXCEEDED, 'Deadline exceeded');

/** A cancel within this time (milliseconds) before the deadline counts as the deadline: the client's timer may be early. */
const DEADLINE_MARGIN = 20;

/**
 * One call: the second argument of every handler. Its states:
 * - *open*, until abort() or finish();
 * - *aborted*: the signal has told the handler to stop. finish() follows once the handler has stopped. If the HTTP/2 stream of
 *   an unfinished call closes, because the client cancels or is gone, the call is aborted too;
 * - *finished*: the handler is done and its status is written. The signal of a finished call never aborts;
 * - *closed*: the HTTP/2 stream is gone, and the call leaves the lists of open calls.
 *
 * A call that is aborted or finished is reset if its client does not read the rest of it (unread.ts).
 */
export class Call {
  readonly method: string;
  readonly metadata: Metadata;
  readonly peer: string;
  /** The handler's notes about the call, for the line in the log and the list of open calls. */
  readonly notes: Record<string, string> = {};
  readonly startedAt = performance.now();
  /** True if it does not end by itself, because its response is a stream. */
  readonly endless: boolean;
  /** True if its request or its response is a stream. */
  readonly isStream: boolean;
  /** True if both are. */
  readonly isDuplex: boolean;
  /** How many events and bytes the call had so far. The handler counts them: the transport does not know events. */
  events = 0;
  bytes = 0;
  /** How much of what came the handler has not dealt with. The handler counts that, too. */
  pending = 0;
  /** When bytes of the request last came, in milliseconds of performance.now(). */
  receivedAt = performance.now();
  /** What a guard found out about the client, for the handler. The transport does not look at it. */
  caller: unknown;
  /** Called by the handler at moments that whoever follows the call should see. The transport does not call it. */
  onMilestone: ((name: string) => void) | undefined;
  /** How many of its stream's writes the kernel has taken. */
  writesDone = 0;

  private readonly abortController = new AbortController();
  /** Aborts when the client is gone or its deadline has passed, or when the application ends the call, such as at a drain. */
  readonly signal = this.abortController.signal;

  private deadlineTimer: NodeJS.Timeout | undefined;
  private stopChecking: (() => void) | undefined;
  private headersSent = false;
  /** True once its handler is done and its status is written. */
  finished = false;
  /** True once the call was aborted or finished. */
  private isOver = false;

  constructor(
    private readonly grpcCall: GrpcCall,
    readonly stream: ServerHttp2Stream,
    readonly connection: Connection,
    method: { readonly requestStream: boolean; readonly responseStream: boolean },
    /** Called once the HTTP/2 stream is gone. */
    private readonly onClosed: (call: Call) => void,
  ) {
    this.method = grpcCall.getPath();
    this.metadata = grpcCall.metadata;
    this.peer = grpcCall.getPeer();
    this.endless = method.responseStream;
    this.isStream = method.requestStream || method.responseStream;
    this.isDuplex = method.requestStream && method.responseStream;
    const close = (): void => this.onClose();
    stream.on('error', ignore);
    if (this.isClosed) process.nextTick(close);
    else stream.on('aborted', destroySoon).on('close', close);
    this.startDeadline();
  }

  /** Sends the response headers, unless they were sent before. `headers` are the application's own. */
  sendHeaders(headers: Readonly<Record<string, string>> = {}): void {
    if (this.headersSent) return;
    this.headersSent = true;
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    this.grpcCall.sendMetadata(metadata);
  }

  abort(reason: Error): void {
    if (this.finished) return;
    this.abortController.abort(reason);
    this.resetOnceUnread();
  }

  /** Aborts the call when its client has stopped reading what it is sent (unread.ts), unless the call is over first. */
  abortOnceUnread(reason: Error): void {
    if (!this.isOver) this.checkReading(() => this.abort(reason));
  }

  /** Aborts the call and resets its stream at once, for a client that is known not to read. */
  abortUnread(reason: Error): void {
    this.abort(reason);
    this.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  /**
   * Answer calls this once the handler is done and the status is written. After that, abort() does nothing.
   *
   * @param isRefusal the status is all of the answer
   */
  finish(isRefusal: boolean): void {
    this.finished = true;
    clearTimeout(this.deadlineTimer);
    this.resetOnceUnread();
    if (isRefusal) this.dropRequest();
  }

  /**
   * Asks the client to send nothing more, once the status has left (RFC 9113, 8.1). No limit counts a refused call, so it must not stay for as
   * long as its client leaves its own side open.
   */
  private dropRequest(): void {
    const { stream } = this;
    if (this.isClosed || !stream.headersSent) return;
    stream.close(constants.NGHTTP2_NO_ERROR);
    // Node closes a stream only once all that came is read.
    stream.resume();
  }

  /** Whom the client's certificate names; undefined without a verified one. */
  get peerIdentity(): string | undefined {
    return this.connection.peerIdentity;
  }

  get isClosed(): boolean {
    return this.stream.closed || this.stream.destroyed;
  }

  private onClose(): void {
    this.stopChecking?.();
    clearTimeout(this.deadlineTimer);
    if (!this.finished) this.abortController.abort(this.whyClosed());
    this.onClosed(this);
  }

  private whyClosed(): CallAborted {
    const { endedBecause, isGone } = this.connection;
    if (isGone) {
      const why = endedBecause ?? "the client's connection is gone";
      return new CallAborted(status.CANCELLED, why);
    }
    // At its deadline, a client cancels the call.
    if (Date.now() > Number(this.grpcCall.getDeadline()) - DEADLINE_MARGIN)
      return deadlineExceeded();
    return new CallAborted(status.CANCELLED, 'the client cancelled');
  }

  /**
   * Aborts the call at its deadline. grpc-js sends DEADLINE_EXCEEDED too, but behind the stream's data, and tells the handler
   * only once it is sent: if nobody reads that data, the handler would never stop.
   */
  private startDeadline(): void {
    const deadline = this.grpcCall.getDeadline();
    if (deadline === Infinity) return;
    this.deadlineTimer = setTimeout(
      () => this.abort(deadlineExceeded()),
      // Node warns on standard error of a negative time.
      Math.max(0, Number(deadline) - Date.now()),
    );
  }

  /**
   * Resets the stream if its client does not read the data before the status. The client gets RESOURCE_EXHAUSTED, from
   * ENHANCE_YOUR_CALM; a reset with CANCEL would look as if the client had cancelled.
   */
  private resetOnceUnread(): void {
    if (this.isOver || this.isClosed) return;
    this.isOver = true;
    this.checkReading(() => this.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM));
  }

  private checkReading(onUnread: () => void): void {
    this.stopChecking?.();
    this.stopChecking = whenUnread(this, onUnread);
  }
}

/** grpc-js listens to the first error only. A second one without a listener would end the process. */
function ignore(): void {}

/** Node closes a stream that its client reset with NO_ERROR only once its data is read, and perhaps nobody reads it. */
function destroySoon(this: ServerHttp2Stream): void {
  process.nextTick(() => this.destroy());
}
