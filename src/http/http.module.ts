import { Module } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { FeedModule } from '../feed/feed.module.js';
import { HealthController } from './health.controller.js';

/** Serves the probes over HTTP. */
@Module({
  imports: [FeedModule, TerminusModule.forRoot({ logger: false })],
  controllers: [HealthController],
})
export class HttpModule {}
