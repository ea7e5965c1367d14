import { status } from '@grpc/grpc-js';
import { type ArgumentsHost, Catch, type RpcExceptionFilter } from '@nestjs/common';
import { FORBIDDEN_MESSAGE } from '@nestjs/core/guards/index.js';
import { RpcException } from '@nestjs/microservices';
import { type Observable, throwError } from 'rxjs';
import { compressionRefused, FeedError } from '../feed/errors.js';
import { BadCompressionError } from '../wire/frames.js';
import { feedStatus } from './feed-status.js';
import { CallAborted } from './transport/index.js';

type Thrown = FeedError | CallAborted | BadCompressionError | RpcException;

/**
 * Turns these errors into the status that their call ends with. Nest logs any other error, and its call ends with
 * INTERNAL (statusOf() of transport/status.ts).
 */
@Catch(FeedError, CallAborted, BadCompressionError, RpcException)
export class StatusFilter implements RpcExceptionFilter<Thrown> {
  catch(exception: Thrown, _host: ArgumentsHost): Observable<never> {
    return throwError(() => this.statusOf(exception));
  }

  private statusOf(exception: Thrown): unknown {
    if (exception instanceof FeedError) return feedStatus(exception);
    if (exception instanceof BadCompressionError) return feedStatus(compressionRefused(exception));
    if (exception instanceof RpcException) {
      const error = exception.getError();
      // Nest throws this if a guard returns false. Only the text tells it from other RpcExceptions.
      if (error === FORBIDDEN_MESSAGE)
        return { code: status.PERMISSION_DENIED, details: 'permission denied' };
      return typeof error === 'string' ? { code: status.UNKNOWN, details: error } : error;
    }
    return exception;
  }
}
