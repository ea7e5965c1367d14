import type { IncomingMessage, ServerResponse } from 'node:http';
import { All, Controller, Req, Res } from '@nestjs/common';
import { HttpRefusal, sendProblem } from './problem.js';
import { methodsOf } from './routes.js';

/** Answers what no other controller does below /v1. It comes last. */
@Controller()
export class UnknownController {
  @All('v1/*path')
  refuse(@Req() request: IncomingMessage, @Res() response: ServerResponse): void {
    const path = request.url!.split('?', 1)[0];
    const methods = methodsOf(path).join(', ');
    const refusal =
      methods === ''
        ? new HttpRefusal(404, 'there is nothing here: /v1/openapi.json says what there is')
        : new HttpRefusal(405, `this path has ${methods}`, { allow: methods });
    sendProblem(request, response, refusal);
  }
}
