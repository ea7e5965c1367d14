import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import { certificateExpired } from '../feed/errors.js';
import type { Caller } from '../feed/caller.js';
import type { CallRecord, LiveCall } from '../feed/live-calls.js';
import { onExpiry } from '../tls/expiry.js';
import { expiryOf, identityOf } from '../tls/identity.js';
import { answer } from './answer.js';
import { BodyChunks } from './body-chunks.js';

/** The method that a request calls. */
export interface HttpMethod {
  /** The name of the method of the contract that does the same, such as Watch. */
  readonly name: string;
  /** True for a call that does not end by itself. */
  readonly endless: boolean;
  /** False for a call of one request and one answer. */
  readonly isStream: boolean;
  /** True if it reads the body of its request. */
  readonly hasBody?: boolean;
}

/** The client of a call has gone before its answer. */
export class ClientGone extends Error {}

/**
 * A client that takes nothing of an answer's end for this long (milliseconds) does not read it. Node does not say how much of one
 * write was taken, and an event of 1 MiB is one write: over a slow link it may take most of that time.
 */
const UNREAD_AFTER = 60_000;

/** A call that does not end by itself looks this often (milliseconds) whether its connection is read. */
const PAUSED_INTERVAL = 10_000;

/** One request under way, and its answer. */
export class HttpCall implements LiveCall {
  readonly method: string;
  readonly peer: string;
  readonly notes: CallRecord['notes'] = {};
  readonly startedAt = performance.now();
  readonly endless: boolean;
  readonly isStream: boolean;
  events = 0;
  bytes = 0;
  pending = 0;
  receivedAt = performance.now();
  /** Called at moments that whoever follows the call should see. */
  onMilestone: ((name: string) => void) | undefined;
  /** Who makes the call: set before its handler runs. */
  caller!: Caller;

  private readonly abortController = new AbortController();
  /** Aborts when the client is gone, or when the service ends the call, such as at a drain. */
  readonly signal = this.abortController.signal;
  readonly body: BodyChunks;
  private readonly stopExpiry: (() => void) | undefined;
  /** True once the handler is done, or all of the answer is handed to the connection. */
  private isFinished = false;
  private isClosed = false;
  private looksWhetherRead = false;

  constructor(
    { name, endless, isStream, hasBody }: HttpMethod,
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
    onClosed: (call: HttpCall) => void,
  ) {
    this.method = `/http/${name}`;
    this.endless = endless;
    this.isStream = isStream;
    const { socket } = request;
    const { remoteAddress = '', remotePort = 0, remoteFamily } = socket;
    this.peer =
      remoteFamily === 'IPv6'
        ? `[${remoteAddress}]:${remotePort}`
        : `${remoteAddress}:${remotePort}`;
    this.body = new BodyChunks(request, this.signal);
    // Node stops reading a connection behind a body that nobody takes, and would not see its client leave.
    if (!hasBody) this.body.stop();
    // Without a listener, an error of either would end the process. "close" follows it.
    request.on('error', ignore);
    response.on('error', ignore);
    // Once all of the answer is handed over, "close" follows before a handler that waits for the end goes on. The client is not gone then.
    response.on('finish', () => (this.isFinished = true));
    response.on('close', () => {
      this.isClosed = true;
      this.stopExpiry?.();
      if (!this.isFinished) this.abortController.abort(new ClientGone('the client is gone'));
      onClosed(this);
    });
    if (endless) this.destroyOncePaused();
    const expiry = socket instanceof TLSSocket ? expiryOf(socket) : undefined;
    if (expiry !== undefined)
      this.stopExpiry = onExpiry(expiry, () => this.abort(certificateExpired()));
  }

  /** Whom the client's certificate names; undefined without a verified one. */
  get peerIdentity(): string | undefined {
    const { socket } = this.request;
    return socket instanceof TLSSocket ? identityOf(socket) : undefined;
  }

  abort(reason: Error): void {
    if (this.isFinished) return;
    this.abortController.abort(reason);
    // A watch still sends the rest of an event that it has begun, as long as its client reads.
    if (this.endless && !this.isClosed) this.destroyOnceUnread();
  }

  /** Closes the connection at once. */
  destroy(): void {
    this.request.socket.destroy();
  }

  /** Answers with what JSON.stringify() makes of a value. */
  answer(status: number, value: unknown, headers: OutgoingHttpHeaders = {}): void {
    answer(this.request, this.response, status, JSON.stringify(value), headers);
  }

  /**
   * Called once the handler is done: all of the answer is handed to the connection, or the connection closes without the rest. After that, abort()
   * does nothing, and a client that reads nothing more is closed.
   */
  finish(): void {
    this.isFinished = true;
    if (!this.isClosed) this.destroyOnceUnread();
  }

  /** Has the connection close once the answer is sent. */
  closeAfterAnswer(): void {
    const { socket } = this.request;
    if (this.response.writableFinished) socket.destroySoon();
    else this.response.once('finish', () => socket.destroySoon());
  }

  /**
   * Closes the connection if node has stopped reading it because the answers that wait behind this one take more than 64 KiB: node would not see
   * the client leave. While this one itself waits for the client, it also stops reading, and a write shows that the client has gone.
   */
  private destroyOncePaused(): void {
    const timer = setInterval(() => {
      const { socket } = this.response;
      if (socket?.isPaused() && !socket.writableNeedDrain) this.destroy();
    }, PAUSED_INTERVAL);
    this.response.once('close', () => clearInterval(timer));
  }

  /**
   * Closes the connection if the client stops reading before the end of the answer. Behind another answer on the same connection, this one
   * has no socket yet, and nothing of it is on its way.
   */
  private destroyOnceUnread(): void {
    if (this.looksWhetherRead) return;
    this.looksWhetherRead = true;
    const takenNow = (): number | undefined => {
      const { socket } = this.response;
      return socket ? socket.bytesWritten - socket.writableLength : undefined;
    };
    let taken = takenNow();
    const timer = setInterval(() => {
      const now = takenNow();
      if (now !== undefined && now === taken) this.destroy();
      taken = now;
    }, UNREAD_AFTER);
    this.response.once('close', () => clearInterval(timer));
  }
}

function ignore(): void {}
