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
    /** Tells Nest how the stream ended. */
    readonly ended: (error?: unknown) => void,
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
    const ended = (error?: unknown): void => {
      if (error === undefined) subscriber.complete();
      else subscriber.error(error);
    };
    subscriber.next(new Streamed(source, ended));
  });
}

export function isStream(value: unknown): value is AsyncIterable<Frames> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
}
