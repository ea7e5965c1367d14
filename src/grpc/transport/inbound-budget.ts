import { constants, type ServerHttp2Session } from 'node:http2';

export interface InboundLimits {
  /** The most bytes of whole messages that one connection may hold. */
  readonly connection: number;
  /** The most bytes that all connections together may hold: of whole and unfinished messages, and of single requests (waiting-request.ts). */
  readonly total: number;
  /** The names of the settings for these limits, for the errors that clients get. */
  readonly names: { readonly connection: string; readonly total: string };
}

/**
 * Limits the bytes that one connection holds: those that its request streams have received and that no handler has finished
 * with. A handler has finished with a batch when it asks for the next one.
 *
 * Node gives the connection's window back for each byte that arrives, also for a stream that it was told to stop
 * reading (Http2Session::OnDataChunkReceived in node_http2.cc), so HTTP/2's own window limits nothing here. That window is
 * half of the limit. When whole messages take more than the other half, the budget shuts: the client gets no window back,
 * and what it may still send fits into the limit. At a quarter, the budget opens again.
 *
 * The bytes of unfinished messages do not shut it, because their ends could not arrive then. They count for the total.
 */
export class InboundBudget {
  /** Bytes that the connection holds. */
  held = 0;
  /** How often release() was called. */
  releases = 0;
  /** True while the client gets no more window. */
  isShut = false;

  /** The held bytes that belong to whole messages. */
  private whole = 0;
  private openings = 0;

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly limit: number,
    private readonly total: TotalBudget,
  ) {
    session.setLocalWindowSize(this.window);
  }

  private get window(): number {
    return Math.floor(this.limit / 2);
  }

  /** Counts bytes that have arrived. */
  arrived(bytes: number): void {
    this.held += bytes;
    this.total.arrived(bytes);
  }

  /** Counts bytes that had arrived and now belong to whole messages. */
  completed(bytes: number): void {
    this.whole += bytes;
    if (!this.isShut && this.whole > this.limit / 2) this.shut();
  }

  /**
   * Stops counting bytes with which a handler has finished, or whose stream has ended.
   *
   * @param whole how many of them belong to whole messages
   */
  release(bytes: number, whole: number): void {
    this.held -= bytes;
    this.whole -= whole;
    this.releases++;
    this.total.released(bytes);
    // Not right below half, where each batch would shut it and open it again.
    if (this.isShut && this.whole <= this.limit / 4) this.open();
  }

  private shut(): void {
    this.isShut = true;
    // nghttp2 then keeps a whole window of what it would have given back.
    if (!this.session.destroyed) this.session.setLocalWindowSize(0);
  }

  /**
   * Gives the window back. nghttp2 does so only when the next bytes arrive, and a client without any window can't send
   * any. But it announces a larger window at once. So each opening makes the window one byte larger than the opening before
   * did, and then sets it back.
   */
  private open(): void {
    const { session } = this;
    this.isShut = false;
    if (session.destroyed) return;
    this.openings++;
    session.setLocalWindowSize(this.window + this.openings);
    session.setLocalWindowSize(this.window);
    // Node sends nghttp2's frames only together with one of its own, such as a PING. After GOAWAY it sends no PING, and a second GOAWAY
    // changes nothing: nghttp2 lets its last stream not grow.
    if (session.closed) session.goaway(constants.NGHTTP2_NO_ERROR, session.state.lastProcStreamID);
    else session.ping(() => {});
  }
}

/** Counts the bytes that all connections together hold. Over the limit, it calls onExceeded, once in a turn of the event loop. */
export class TotalBudget {
  private held = 0;
  private isExceeded = false;

  constructor(
    readonly limit: number,
    private readonly onExceeded: () => void,
  ) {}

  arrived(bytes: number): void {
    this.held += bytes;
    if (this.held <= this.limit || this.isExceeded) return;
    this.isExceeded = true;
    // Not at once: node's callback for the arriving bytes still uses the stream that onExceeded() may destroy.
    setImmediate(() => {
      this.isExceeded = false;
      this.onExceeded();
    });
  }

  released(bytes: number): void {
    this.held -= bytes;
  }
}
