import type { ServerHttp2Session } from 'node:http2';

/** The PINGs of one connection. A client answers one after it has read all that was sent to it before. */
export class Pings {
  /** Called at the answer to the next PING of sendForCallbacks(). */
  private callbacks: (() => void)[] = [];
  private isAsking = false;

  constructor(private readonly session: ServerHttp2Session) {}

  /** @returns false if none can be sent: the connection is ending, or has ten unanswered ones */
  send(onAnswer: () => void): boolean {
    if (this.session.destroyed || this.session.closed) return false;
    return this.session.ping((error) => {
      if (!error) onAnswer();
    });
  }

  /**
   * Calls back at the answer to a PING that is sent from now on. Callbacks that come while one is unanswered share the
   * next. On a connection that is ending, where node sends no PING, it calls back at once.
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
