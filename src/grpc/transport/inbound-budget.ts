import type { ServerHttp2Session } from 'node:http2';

export interface InboundLimits {
  /** Whole messages that one connection may have sent and that no handler has finished with, bytes. */
  readonly connection: number;
  /** All that all connections may have sent and that no handler has finished with, bytes. */
  readonly total: number;
  /** What these limits are called where they are set: an error that a client gets names them. */
  readonly names: { readonly connection: string; readonly total: string };
}

/**
 * Bounds what the request streams of one connection have received and no handler has finished with. A handler has
 * finished with a batch when it asks for the next one.
 *
 * Node gives the connection's window back for each byte that arrives, also for a stream that it was told to stop
 * reading (Http2Session::OnDataChunkReceived in node_http2.cc), so HTTP/2's own window bounds nothing here. Half of
 * the limit is that window. While messages that wait for their handlers take more than the other half, the window is
 * not given back: what the client may still send fits into the limit.
 *
 * The bytes of unfinished messages do not close the window, because their ends could not arrive then. They count for
 * the total.
 */
export class InboundBudget {
  /** Bytes that have arrived and that no handler has finished with. */
  held = 0;
  /** How often a handler has finished with something. */
  releases = 0;
  /** True while the client gets no more window. */
  isShut = false;

  /** Bytes of whole messages, of those held. */
  private whole = 0;
  private opened = 0;

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly limit: number,
    private readonly total: TotalBudget,
  ) {
    session.setLocalWindowSize(this.window);
  }

  private get window(): number {
    return this.limit / 2;
  }

  /** Counts bytes that have arrived. */
  arrived(bytes: number): void {
    this.held += bytes;
    this.total.arrived(bytes);
  }

  /** Counts bytes that arrived before and are whole messages now. */
  finished(bytes: number): void {
    this.whole += bytes;
    if (!this.isShut && this.whole > this.limit / 2) this.shut();
  }

  /** A handler has finished with so many bytes, or its stream has ended: of them, so many are of whole messages. */
  release(bytes: number, whole: number): void {
    this.held -= bytes;
    this.whole -= whole;
    this.releases++;
    this.total.released(bytes);
    // Not at once, or each batch that is taken would open and shut it again.
    if (this.isShut && this.whole <= this.limit / 4) this.open();
  }

  private shut(): void {
    this.isShut = true;
    // nghttp2 withholds so much of what it would give back.
    if (!this.session.destroyed) this.session.setLocalWindowSize(0);
  }

  /**
   * Gives the window back. nghttp2 only does so when the next bytes arrive, which a client without any window can't
   * send: it is given one byte more than was withheld, each time.
   */
  private open(): void {
    const { session } = this;
    this.isShut = false;
    if (session.destroyed) return;
    this.opened++;
    session.setLocalWindowSize(this.window + this.opened);
    session.setLocalWindowSize(this.window);
    // Node sends what nghttp2 has to send with the next frame of its own.
    if (!session.closed) session.ping(() => {});
  }
}

/** Bounds what all connections together hold: over the limit, onExceeded is called, once in a turn of the event loop. */
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
    // Not within node's callback for the bytes that arrive: what is ended there is still in use.
    setImmediate(() => {
      this.isExceeded = false;
      this.onExceeded();
    });
  }

  released(bytes: number): void {
    this.held -= bytes;
  }
}
