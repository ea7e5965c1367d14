import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  type ArgumentsHost,
  Catch,
  type ExceptionFilter,
  HttpException,
  NotFoundException,
  ServiceUnavailableException,
} from '@nestjs/common';
import type { Logger } from 'pino';
import { FeedError } from '../feed/errors.js';
import { answer } from './answer.js';
import { HttpRefusal, sendProblem } from './problem.js';
import { methodsOf } from './routes.js';

/** Answers a request with a problem, whatever Nest, Express, a middleware or a controller throws for it. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  constructor(
    /** False if nothing is served below /v1. */
    private readonly hasCalls: boolean,
    private readonly log: Logger,
  ) {}

  catch(error: unknown, host: ArgumentsHost): void {
    // Nest asks the filters of an application about gRPC's calls, too. It goes on without a filter that returns nothing.
    if (host.getType() !== 'http') return;
    const http = host.switchToHttp();
    const request = http.getRequest<IncomingMessage>();
    const response = http.getResponse<ServerResponse>();
    // A probe that says "not ready" has the form of one that says "ready".
    if (error instanceof ServiceUnavailableException)
      answer(request, response, error.getStatus(), JSON.stringify(error.getResponse()));
    else sendProblem(request, response, this.refusalOf(error, request));
  }

  private refusalOf(error: unknown, request: IncomingMessage): unknown {
    // Nest throws this where no controller has the path and the method.
    if (error instanceof NotFoundException) return this.unknownPath(request);
    if (error instanceof HttpException) return new HttpRefusal(error.getStatus(), error.message);
    if (!(error instanceof HttpRefusal || error instanceof FeedError))
      this.log.error({ context: 'HTTP', err: error }, 'a request failed');
    return error;
  }

  private unknownPath({ url, method }: IncomingMessage): HttpRefusal {
    const methods = methodsOf(url!.split('?', 1)[0], this.hasCalls);
    if (methods.length > 0 && !methods.includes(method === 'HEAD' ? 'GET' : method!)) {
      const allow = methods.join(', ');
      return new HttpRefusal(405, `this path has ${allow}`, { allow });
    }
    const where = this.hasCalls ? ': /v1/openapi.json says what there is' : '';
    return new HttpRefusal(404, `there is nothing here${where}`);
  }
}
