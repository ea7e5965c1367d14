import {
  type CallHandler,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
} from '@nestjs/common';
import { mergeMap, Observable, of } from 'rxjs';
import type { Frames } from '../../wire/frames.js';

/**
 * A handler's stream on its way through Nest, where it is one value: Nest's Observable stays open while the
 * transport pulls the stream, and ends as the stream ends. So interceptors see the end of the call and
 * exception filters its errors, and neither is between its messages.
 */
export class Streamed {
  constructor(
    readonly source: AsyncIterable<Frames>,
    /** Tells Nest that the stream ended, or what it ended with. */
    readonly ended: () => void,
    readonly failed: (error: unknown) => void,
  ) {}
}

/** Belongs on every controller that returns streams, inside its other interceptors. */
@Injectable()
export class StreamedResult implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
    return next
      .handle()
      .pipe(mergeMap((value: unknown) => (isStream(value) ? streamed(value) : of(value))));
  }
}

function streamed(source: AsyncIterable<Frames>): Observable<Streamed> {
  return new Observable((subscriber) => {
    subscriber.next(
      new Streamed(
        source,
        () => subscriber.complete(),
        (error) => subscriber.error(error),
      ),
    );
  });
}

export function isStream(value: unknown): value is AsyncIterable<Frames> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}
