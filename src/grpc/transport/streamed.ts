import { Observable, type Subscriber } from 'rxjs';
import type { Frames, FrameSource } from '../../wire/frames.js';

/** How a stream ended. It failed if the property `error` exists, even as undefined. */
export interface Outcome {
  readonly error?: unknown;
}

/**
 * Carries a handler's stream through Nest: an Observable whose only value is itself, and which ends as the stream ends. The
 * transport pulls the messages from `frames`. So interceptors see the end of the call and exception filters its errors, but
 * no message passes through them.
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

/** All streams share this function, to save a closure for each. Rxjs calls it with the Observable as `this`. */
function begin(this: Observable<Streamed>, subscriber: Subscriber<Streamed>): void {
  (this as Streamed).begin(subscriber);
}

function settle(subscriber: Subscriber<Streamed>, outcome: Outcome): void {
  if ('error' in outcome) subscriber.error(outcome.error);
  else subscriber.complete();
}

/** A handler that answers with a stream returns this. */
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
 * Returns the stream if Nest has put only exception filters around it, and undefined if there are interceptors, which run only
 * when subscribed to. Filters see only the end, so the subscription can wait until then, which saves memory of every open
 * call (docs/performance.md, "No interceptor").
 */
export function bareStream(handled: Observable<unknown>): Streamed | undefined {
  return handled.source instanceof Streamed ? handled.source : undefined;
}
