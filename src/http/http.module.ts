import { type DynamicModule, Module, type Type } from '@nestjs/common';
import { TerminusModule } from '@nestjs/terminus';
import { AuthModule } from '../auth/auth.module.js';
import { FeedModule } from '../feed/feed.module.js';
import { HealthController } from './health.controller.js';
import { HttpCalls } from './http-calls.js';
import { HttpDoor } from './http-door.js';
import { UploadController } from './upload.controller.js';
import { WatchController } from './watch.controller.js';

/** The controllers of what is below /v1. */
const CALLS: readonly Type[] = [WatchController, UploadController];

/** The HTTP door: the probes, and what is below /v1. */
@Module({})
export class HttpModule {
  /** @param hasCalls false: the probes alone, because a guard of a team knows the callers of gRPC and of nothing else */
  static of(hasCalls: boolean): DynamicModule {
    return {
      module: HttpModule,
      imports: [FeedModule, AuthModule, TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController, ...(hasCalls ? CALLS : [])],
      providers: [HttpCalls, HttpDoor],
      exports: [HttpDoor],
    };
  }
}
