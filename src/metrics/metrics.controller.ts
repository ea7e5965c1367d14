import {
  Controller,
  ForbiddenException,
  Get,
  HttpException,
  HttpStatus,
  Inject,
  Res,
} from '@nestjs/common';
import { CONFIG, type Config } from '../config/config.js';
import { MetricsPage } from './metrics-page.js';

/** Serves the metrics on the HTTP port, unless they have a port of their own. */
@Controller()
export class MetricsController {
  constructor(
    private readonly page: MetricsPage,
    @Inject(CONFIG) private readonly config: Config,
  ) {}

  /**
   * Answers whoever may call the service at all: anybody, where nobody is asked who they are; whoever has shown a client
   * certificate, where one is demanded (src/http/client-certificate.ts). Where tokens are, it answers nobody.
   */
  @Get('metrics')
  async metrics(
    @Res({ passthrough: true }) response: { type(type: string): unknown },
  ): Promise<string> {
    const { metricsAddress, jwt } = this.config;
    if (metricsAddress)
      // No NotFoundException, which Nest throws for an unknown path (src/http/problem.filter.ts).
      throw new HttpException(
        `metrics are at FEED_METRICS_ADDRESS, ${metricsAddress.text}`,
        HttpStatus.NOT_FOUND,
      );
    if (jwt)
      throw new ForbiddenException(
        'where callers show tokens, metrics need a port of their own: set FEED_METRICS_ADDRESS',
      );
    const text = await this.page.text();
    response.type(this.page.contentType);
    return text;
  }
}
