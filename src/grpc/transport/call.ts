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

/** Why the transport aborted a call; a gRPC status of that code. */
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

/** How early (milliseconds) a client's own clock may end a call at its deadline. */
const DEADLINE_MARGIN = 20;

/**
 * One call, as handlers see it: the second argument of every handler. Its signal aborts for whatever ends
 * the call from outside; the handler's own end does not abort it.
 */
export class Call {
  readonly method: string;
  readonly metadata: Metadata;
  readonly peer: string;
  /** What the handler notes of the call, for the log line of its end and for the list of open calls. */
  readonly notes: Record<string, string> = {};
  readonly startedAt = performance.now();
  /** What went through the call. Handlers count it, because the transport does not know what an event is. */
  events = 0;
  bytes = 0;
  /** Writes of its stream that the kernel has taken. */
  writesDone = 0;

  private readonly abortion = new AbortController();
  /** Aborts when the client is gone, its deadline has passed, or the server drains. */
  readonly signal = this.abortion.signal;

  private deadlineTimer: NodeJS.Timeout | undefined;
  private stopChecks: (() => void) | undefined;
  private headersSent = false;
  private finished = false;
  /** True once the call was aborted or finished. Its stream may still hold data that the client has not taken. */
  private isOver = false;

  constructor(
    private readonly grpcCall: GrpcCall,
    /** The HTTP/2 stream under it. */
    readonly stream: ServerHttp2Stream,
    readonly connection: Connection,
    /** Does not end by itself: its response is a stream. */
    readonly endless: boolean,
    /** Called once the HTTP/2 stream is gone. */
    private readonly onClosed: (call: Call) => void,
  ) {
    this.method = grpcCall.getPath();
    this.metadata = grpcCall.metadata;
    this.peer = grpcCall.getPeer();
    const close = (): void => this.onClose();
    stream.on('error', ignore);
    if (this.isClosed) process.nextTick(close);
    else stream.on('aborted', destroySoon).on('close', close);
    this.startDeadline();
  }

  /** Sends the response headers now, with these of the application's in them. */
  sendHeaders(headers: Readonly<Record<string, string>> = {}): void {
    if (this.headersSent) return;
    this.headersSent = true;
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    this.grpcCall.sendMetadata(metadata);
  }

  abort(reason: Error): void {
    if (this.finished) return;
    this.abortion.abort(reason);
    this.resetOnceUnread();
  }

  /** Aborts once the client does not read what it was sent, unless the call ends before. */
  abortOnceUnread(reason: Error): void {
    if (!this.isOver) this.check(() => this.abort(reason));
  }

  /** Aborts, and resets the stream at once: its client has been seen not to read. */
  abortUnread(reason: Error): void {
    this.abort(reason);
    this.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  /** To be called once the handler is done and its status sent: from now on nothing is aborted. */
  finish(): void {
    this.finished = true;
    clearTimeout(this.deadlineTimer);
    this.resetOnceUnread();
  }

  get isClosed(): boolean {
    return this.stream.closed || this.stream.destroyed;
  }

  private onClose(): void {
    this.stopChecks?.();
    clearTimeout(this.deadlineTimer);
    if (!this.finished) this.abortion.abort(this.whyClosed());
    this.onClosed(this);
  }

  private whyClosed(): CallAborted {
    const { endedBecause, isGone } = this.connection;
    if (isGone) {
      const why = endedBecause ?? "the client's connection is gone";
      return new CallAborted(status.CANCELLED, why);
    }
    // A client whose deadline passes cancels at that very time.
    if (Date.now() > Number(this.grpcCall.getDeadline()) - DEADLINE_MARGIN)
      return deadlineExceeded();
    return new CallAborted(status.CANCELLED, 'the client cancelled');
  }

  /**
   * grpc-js sends DEADLINE_EXCEEDED itself, but behind data that nobody may read, and tells the handler
   * only once it is out: a stalled stream would hold everything for ever.
   */
  private startDeadline(): void {
    const deadline = this.grpcCall.getDeadline();
    if (deadline === Infinity) return;
    this.deadlineTimer = setTimeout(
      () => this.abort(deadlineExceeded()),
      Number(deadline) - Date.now(),
    );
  }

  /**
   * A status may wait behind data that the client does not read. The client gets RESOURCE_EXHAUSTED then; a reset with CANCEL would reach it as CANCELLED, as if that were its own doing.
   */
  private resetOnceUnread(): void {
    if (this.isOver || this.isClosed) return;
    this.isOver = true;
    this.check(() => this.stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM));
  }

  private check(onUnread: () => void): void {
    this.stopChecks?.();
    this.stopChecks = whenUnread(this, onUnread);
  }
}

/** grpc-js listens once; a second error event would end the process. */
function ignore(): void {}

/** Node closes a stream that is reset with NO_ERROR only once its data is read, which nobody may do. */
function destroySoon(this: ServerHttp2Stream): void {
  process.nextTick(() => this.destroy());
}
