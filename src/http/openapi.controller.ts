import type { IncomingMessage, ServerResponse } from 'node:http';
import { Controller, Get, Req, Res } from '@nestjs/common';
import { answer } from './answer.js';
import { openApi } from './openapi.js';

/** What is below /v1, for programs. It has no secrets, so anybody may read it. */
@Controller()
export class OpenApiController {
  private document: string | undefined;

  @Get('v1/openapi.json')
  read(@Req() request: IncomingMessage, @Res() response: ServerResponse): void {
    this.document ??= JSON.stringify(openApi());
    answer(request, response, 200, this.document);
  }
}
