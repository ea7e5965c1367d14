import type { IncomingMessage, ServerResponse } from 'node:http';
import { All, Controller, Get, Inject, Req, Res } from '@nestjs/common';
import { CONFIG, type Config } from '../config/config.js';
import { HttpRefusal, sendProblem } from './problem.js';
import { methodsOf } from './routes.js';

/** Answers what no other controller does. It comes last. */
@Controller()
export class UnknownController {
  constructor(@Inject(CONFIG) private readonly config: Config) {}

  /** Somebody who types the service's address into a browser wants to see it. */
  @Get()
  root(@Req() request: IncomingMessage, @Res() response: ServerResponse): void {
    // Relative, so that it is right behind a proxy that adds a prefix.
    if (this.config.hasConsole) response.writeHead(307, { location: './console/' }).end();
    else this.refuse(request, response);
  }

  @All('*path')
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
