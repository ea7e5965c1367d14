import { type sendUnaryData, status } from '@grpc/grpc-js';
import { isObservable, type Observable, type Observer, type Subscription } from 'rxjs';
import { type Call, CallAborted, type GrpcCall } from './call.js';
import { send } from './outbound.js';
import { statusOf } from './status.js';
import { bareStream, type Outcome, Streamed } from './streamed.js';

export interface EndedCall {
  readonly call: Call;
  readonly code: status;
  readonly details: string;
  /** The error that the handler, an interceptor, a guard or a filter threw. */
  readonly error?: unknown;
}

/**
 * Sends the answer of one call, a message or a stream, from Nest to the client, and then the status.
 *
 * follow() starts it. A stream with nothing but exception filters around it is sent first, and its Observable is subscribed
 * to once it has ended. Any other Observable is subscribed to at once, and next() gets the message or the stream. The
 * first error or completion sends the status; later ones are ignored.
 */
export class Answer implements Observer<unknown> {
  private result: unknown;
  private subscription: Subscription | undefined;
  private hasStream = false;
  private isSendingStream = false;
  private ended = false;

  constructor(
    private readonly call: Call,
    private readonly grpcCall: GrpcCall,
    /** Sends a message, or a status. Undefined if the answer is a stream. */
    private readonly respond: sendUnaryData<unknown> | undefined,
    private readonly onEnd: ((ended: EndedCall) => void) | undefined,
    private readonly runEndHook: () => void,
  ) {}

  /** @param handled what Nest made of the handler's result: a message, or an Observable of one message or stream */
  follow(handled: unknown): void {
    if (!isObservable(handled)) {
      this.next(handled);
      this.complete();
      return;
    }
    const stream = bareStream(handled);
    if (stream) this.sendStream(stream, handled);
    else this.subscribe(handled);
  }

  next(value: unknown): void {
    if (this.respond) this.result = value;
    else if (value instanceof Streamed) this.sendStream(value);
    else this.error(new Error(`the handler of ${this.call.method} did not answer with streamed()`));
  }

  private subscribe(handled: Observable<unknown>): void {
    this.subscription = handled.subscribe(this);
    if (this.ended) this.subscription.unsubscribe();
  }

  /** @param subscribeAfter the Observable to subscribe to once the stream has ended */
  private sendStream(stream: Streamed, subscribeAfter?: Observable<unknown>): void {
    this.hasStream = this.isSendingStream = true;
    const end = (outcome: Outcome): void => {
      this.isSendingStream = false;
      stream.end(outcome);
      if (subscribeAfter) this.subscribe(subscribeAfter);
    };
    send(stream.frames, this.call).then(
      () => end({}),
      (error: unknown) => end({ error }),
    );
  }

  error(thrown: unknown): void {
    this.end(thrown ?? new Error('a handler threw nothing'));
  }

  complete(): void {
    const isMissing = this.respond ? this.result === undefined : !this.hasStream;
    this.end(
      isMissing ? new Error(`the handler of ${this.call.method} returned nothing`) : undefined,
    );
  }

  private end(error: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.subscription?.unsubscribe();
    const { call, grpcCall } = this;
    // If the transport aborted the call, that decides the status, even if a filter returned another one.
    const reason: unknown = call.signal.reason;
    const ended = reason instanceof CallAborted ? reason : error;
    const sent = ended === undefined ? undefined : statusOf(ended);
    const isRefusal = sent !== undefined && !call.stream.headersSent;
    try {
      if (!call.isClosed) {
        if (this.respond) this.respond(sent ?? null, this.result);
        else if (sent) grpcCall.emit('error', sent);
        else grpcCall.end();
      }
    } finally {
      // An interceptor may end the call while its stream is being sent. The abort closes the stream's source.
      if (this.isSendingStream) call.abort(new Error('the call ended before its stream'));
      call.finish(isRefusal);
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
