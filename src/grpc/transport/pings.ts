import type { ServerHttp2Session } from 'node:http2';

/** The PINGs of one connection. A client answers one after it has read all that was sent to it before. */
export class Pings {
  /** The callbacks that the next PING of sendForCallbacks() takes. */
  private callbacks: (() => void)[] = [];
  private isAsking = false;

  constructor(private readonly session: ServerHttp2Session) {}

  /** Sends a PING now. Returns false if node can't: the connection is ending, or ten PINGs are unanswered. */
  send(onAnswer: () => void): boolean {
    if (this.session.destroyed || this.session.closed) return false;
    return this.session.ping((error) => {
      if (!error) onAnswer();
    });
  }

  /**
   * Calls back when a PING that was sent after this call is answered. Calls during one unanswered PING share the next. If no PING
   * can be sent (see send()), it calls back at once.
   */
  ask(callback: () => void): void {
    this.callbacks.push(callback);
    if (!this.isAsking) this.sendForCallbacks();
  }

  private sendForCallbacks(): void {
    const { callbacks } = this;
    this.callbacks = [];
    this.isAsking = true;
    const onAnswer = (): void => {
      this.isAsking = false;
      for (const callback of callbacks) callback();
      if (this.callbacks.length > 0 && !this.isAsking) this.sendForCallbacks();
    };
    if (!this.send(onAnswer)) onAnswer();
  }
}
