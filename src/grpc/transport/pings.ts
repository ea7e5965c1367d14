import type { ServerHttp2Session } from 'node:http2';

/** How soon (milliseconds) a PING that node refused, because ten are unanswered, is tried again. */
const RETRY = 20;

/** The PINGs of one connection. A client answers one after it has read all that was sent to it before. */
export class Pings {
  /** The callbacks that the next PING of sendForCallbacks() takes. */
  private callbacks: (() => void)[] = [];
  private isAsking = false;

  constructor(private readonly session: ServerHttp2Session) {}

  /** True once node sends no PING on this connection any more. */
  private get isEnding(): boolean {
    return this.session.destroyed || this.session.closed;
  }

  /** Sends a PING now. Returns false if node can't: the connection is ending, or ten PINGs are unanswered. */
  send(onAnswer: () => void): boolean {
    if (this.isEnding) return false;
    return this.session.ping((error) => {
      if (!error) onAnswer();
    });
  }

  /**
   * Calls back when a PING that was sent after this call is answered. Calls during one unanswered PING share the next. If the next can't be
   * sent, because the connection is ending, it calls back at once. A PING that has left may stay unanswered for ever, also then.
   */
  ask(callback: () => void): void {
    this.callbacks.push(callback);
    if (!this.isAsking) this.sendForCallbacks();
  }

  private sendForCallbacks(): void {
    const { callbacks } = this;
    const onAnswer = (): void => {
      this.isAsking = false;
      for (const callback of callbacks) callback();
      if (this.callbacks.length > 0 && !this.isAsking) this.sendForCallbacks();
    };
    this.isAsking = true;
    if (!this.send(onAnswer) && !this.isEnding) {
      // Ten are unanswered. To call back now would say that the client had read what it has not.
      setTimeout(() => this.sendForCallbacks(), RETRY);
      return;
    }
    this.callbacks = [];
    if (this.isEnding) onAnswer();
  }
}
