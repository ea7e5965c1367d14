import { Observable, type Subscriber } from 'rxjs';
import type { Frames, FrameSource } from '../../wire/frames.js';

/** How a stream ended: `error` is there if it failed. */
export interface Outcome {
  readonly error?: unknown;
}

/**
 * A handler's stream on its way through Nest, where it is one value of an Observable that stays open while the
 * transport pulls the stream, and ends as the stream ends. So interceptors see the end of the call and exception
 * filters its errors, and neither is between its messages.
 */
export class Streamed extends Observable<Streamed> {
  private subscriber: Subscriber<Streamed> | undefined;
  private outcome: Outcome | undefined;

  constructor(readonly frames: FrameSource) {
    super(begin);
  }

  /** Tells Nest that the stream ended, or what it ended with. */
  end(outcome: Outcome): void {
    this.outcome = outcome;
    if (this.subscriber) settle(this.subscriber, outcome);
  }

  /** Rxjs calls this on subscription, which may happen before or after the stream has ended. */
  begin(subscriber: Subscriber<Streamed>): void {
    if (this.outcome) {
      settle(subscriber, this.outcome);
    } else {
      this.subscriber = subscriber;
      subscriber.next(this);
    }
  }
}

/** One function for all streams. Rxjs calls it with the Observable that is subscribed to as `this`. */
function begin(this: Observable<Streamed>, subscriber: Subscriber<Streamed>): void {
  (this as Streamed).begin(subscriber);
}

function settle(subscriber: Subscriber<Streamed>, outcome: Outcome): void {
  if ('error' in outcome) subscriber.error(outcome.error);
  else subscriber.complete();
}

/** What a handler returns that answers with a stream. */
export function streamed(frames: FrameSource | AsyncIterable<Frames>): Streamed {
  return new Streamed(Symbol.asyncIterator in frames ? new IterableSource(frames) : frames);
}

class IterableSource implements FrameSource {
  isOver = false;
  private iterator!: AsyncIterator<Frames>;

  constructor(private readonly frames: AsyncIterable<Frames>) {}

  open(): void {
    this.iterator = this.frames[Symbol.asyncIterator]();
  }

  async take(): Promise<Frames | undefined> {
    const { done, value } = await this.iterator.next();
    if (!done) return value;
    this.isOver = true;
    return undefined;
  }

  async close(): Promise<void> {
    if (!this.isOver) await this.iterator.return?.();
  }
}

/**
 * The stream that Nest has put nothing but exception filters around. It can be pulled without a subscription, which
 * only has to be there for its end: that saves memory of every open call (docs/performance.md, "No interceptor").
 * Interceptors have to be subscribed to.
 */
export function bareStream(handled: Observable<unknown>): Streamed | undefined {
  return handled.source instanceof Streamed ? handled.source : undefined;
}
