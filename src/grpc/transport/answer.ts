import { type sendUnaryData, status } from '@grpc/grpc-js';
import { isObservable, type Observable, type Observer, type Subscription } from 'rxjs';
import { type Call, CallAborted, type GrpcCall } from './call.js';
import { pump } from './outbound.js';
import { statusOf } from './status.js';
import { bareStream, type Outcome, Streamed } from './streamed.js';

export interface EndedCall {
  readonly call: Call;
  readonly code: status;
  readonly details: string;
  /** What the handler, an interceptor, a guard or a filter threw. */
  readonly error?: unknown;
}

/** A call's answer on its way from Nest to the client: a message or a stream, and the status. */
export class Answer implements Observer<unknown> {
  private result: unknown;
  private subscription: Subscription | undefined;
  private hasPulled = false;
  private isPulling = false;
  private ended = false;

  constructor(
    private readonly call: Call,
    private readonly grpcCall: GrpcCall,
    /** Where the answer is a message. */
    private readonly respond: sendUnaryData<unknown> | undefined,
    private readonly onEnd: ((ended: EndedCall) => void) | undefined,
    private readonly runEndHook: () => void,
  ) {}

  /** Takes what the handler gave to Nest. */
  follow(handled: unknown): void {
    if (!isObservable(handled)) {
      this.next(handled);
      this.complete();
      return;
    }
    const stream = bareStream(handled);
    if (stream) this.pull(stream, handled);
    else this.listen(handled);
  }

  next(value: unknown): void {
    if (this.respond) this.result = value;
    else if (value instanceof Streamed) this.pull(value);
    else this.error(new Error(`the handler of ${this.call.method} did not answer with streamed()`));
  }

  private listen(handled: Observable<unknown>): void {
    this.subscription = handled.subscribe(this);
    if (this.ended) this.subscription.unsubscribe();
  }

  /** @param unheard what is still to be subscribed to */
  private pull(stream: Streamed, unheard?: Observable<unknown>): void {
    this.hasPulled = this.isPulling = true;
    const end = (outcome: Outcome): void => {
      this.isPulling = false;
      stream.end(outcome);
      if (unheard) this.listen(unheard);
    };
    pump(stream.frames, this.call).then(
      () => end({}),
      (error: unknown) => end({ error }),
    );
  }

  error(thrown: unknown): void {
    this.end(thrown ?? new Error('a handler threw nothing'));
  }

  complete(): void {
    const isMissing = this.respond ? this.result === undefined : !this.hasPulled;
    this.end(
      isMissing ? new Error(`the handler of ${this.call.method} returned nothing`) : undefined,
    );
  }

  private end(error: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.subscription?.unsubscribe();
    const { call, grpcCall } = this;
    // Where the transport ended the call, that is how it ended, whatever a filter makes of it.
    const reason: unknown = call.signal.reason;
    const ended = reason instanceof CallAborted ? reason : error;
    const sent = ended === undefined ? undefined : statusOf(ended);
    try {
      if (!call.isClosed) {
        if (this.respond) this.respond(sent ?? null, this.result);
        else if (sent) grpcCall.emit('error', sent);
        else grpcCall.end();
      }
    } finally {
      // An interceptor may end the call before its stream: whoever makes the stream has to hear of it.
      if (this.isPulling) call.abort(new Error('the call ended before its stream'));
      call.finish();
      this.onEnd?.({
        call,
        code: sent?.code ?? status.OK,
        details: sent?.details ?? '',
        error: ended,
      });
      this.runEndHook();
    }
  }
}
