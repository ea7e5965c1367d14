import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ArgumentsHost, Catch, type ExceptionFilter, NotFoundException } from '@nestjs/common';
import { HttpRefusal, sendProblem } from './problem.js';
import { methodsOf } from './routes.js';

/** Answers what no controller does, which Nest throws as a NotFoundException. */
@Catch(NotFoundException)
export class UnknownPathFilter implements ExceptionFilter {
  catch(_error: NotFoundException, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const request = http.getRequest<IncomingMessage>();
    const path = request.url!.split('?', 1)[0];
    const methods = methodsOf(path).join(', ');
    const refusal =
      methods === ''
        ? new HttpRefusal(404, 'there is nothing here: /v1/openapi.json says what there is')
        : new HttpRefusal(405, `this path has ${methods}`, { allow: methods });
    sendProblem(request, http.getResponse<ServerResponse>(), refusal);
  }
}
