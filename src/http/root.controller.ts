import type { ServerResponse } from 'node:http';
import { Controller, Get, Inject, NotFoundException, Res } from '@nestjs/common';
import { CONFIG, type Config } from '../config/config.js';

/** `/`: somebody who types the service's address into a browser wants to see it. */
@Controller()
export class RootController {
  constructor(@Inject(CONFIG) private readonly config: Config) {}

  @Get()
  lead(@Res() response: ServerResponse): void {
    if (!this.config.hasConsole) throw new NotFoundException();
    // Relative, so that it is right behind a proxy that adds a prefix.
    response.writeHead(307, { location: './console/' }).end();
  }
}
