import { Controller, Get } from '@nestjs/common';
import {
  HealthCheck,
  HealthCheckService,
  type HealthCheckResult,
  HealthIndicatorService,
} from '@nestjs/terminus';
import { Readiness } from '../feed/readiness.js';

@Controller()
export class HealthController {
  constructor(
    private readonly health: HealthCheckService,
    private readonly indicators: HealthIndicatorService,
    private readonly readiness: Readiness,
  ) {}

  /**
   * The liveness probe: it succeeds while the event loop turns. It must not check what mends by itself, such as a full
   * disk: a restart would only end what still works.
   */
  @Get('healthz')
  @HealthCheck()
  alive(): Promise<HealthCheckResult> {
    return this.health.check([]);
  }

  /** The readiness probe: it succeeds while the service takes new work. */
  @Get('readyz')
  @HealthCheck()
  ready(): Promise<HealthCheckResult> {
    return this.health.check([
      () => {
        const feed = this.indicators.check('feed');
        return this.readiness.ready ? feed.up() : feed.down({ message: 'starting or draining' });
      },
    ]);
  }
}
