import type { IncomingMessage } from 'node:http';

/** The body of a request, in the chunks in which it comes. It reads no more than what next() asks for. */
export class BodyChunks {
  private isStopped = false;
  private wake: () => void = () => {};
  private readonly onMore = (): void => this.wake();

  /** @param signal next() rejects with its reason once it aborts */
  constructor(
    private readonly request: IncomingMessage,
    private readonly signal: AbortSignal,
  ) {
    request.on('readable', this.onMore).on('end', this.onMore);
    signal.addEventListener('abort', this.onMore);
  }

  /** Resolves with the next chunk; with undefined at the end of the body, or after stop(). */
  async next(): Promise<Buffer | undefined> {
    const { request, signal } = this;
    for (;;) {
      signal.throwIfAborted();
      if (this.isStopped) return undefined;
      const chunk = request.read() as Buffer | null;
      if (chunk) return chunk;
      if (request.readableEnded) return undefined;
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }

  /** Reads no more. What is left of the body is for whoever ends the call. */
  stop(): void {
    this.isStopped = true;
    this.request.off('readable', this.onMore).off('end', this.onMore);
    this.signal.removeEventListener('abort', this.onMore);
    this.wake();
  }
}
