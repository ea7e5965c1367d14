import {
  type DynamicModule,
  type MiddlewareConsumer,
  Module,
  type NestModule,
  type Type,
} from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { TerminusModule } from '@nestjs/terminus';
import type { Logger } from 'pino';
import { AuthModule } from '../auth/auth.module.js';
import { FeedModule } from '../feed/feed.module.js';
import { LOG } from '../telemetry/log.js';
import { AdminController } from './admin.controller.js';
import { BrowserGuard } from './browser-guard.js';
import { HealthController } from './health.controller.js';
import { HttpCalls } from './http-calls.js';
import { OpenApiController } from './openapi.controller.js';
import { ProblemFilter } from './problem.filter.js';
import { SessionController } from './session.controller.js';
import { RootController } from './root.controller.js';
import { UploadController } from './upload.controller.js';
import { WatchController } from './watch.controller.js';

/** The controllers of what is below /v1, and of `/`. */
const CALLS: readonly Type[] = [
  WatchController,
  UploadController,
  AdminController,
  SessionController,
  OpenApiController,
  RootController,
];

/** The HTTP door: the probes, and what is below /v1. */
@Module({})
export class HttpModule implements NestModule {
  /** @param hasCalls false: the probes alone, because a guard of a team knows the callers of gRPC and of nothing else */
  static of(hasCalls: boolean): DynamicModule {
    return {
      module: HttpModule,
      imports: [FeedModule, AuthModule, TerminusModule.forRoot({ logger: false })],
      controllers: [HealthController, ...(hasCalls ? CALLS : [])],
      providers: [
        HttpCalls,
        BrowserGuard,
        {
          provide: APP_FILTER,
          useFactory: (log: Logger) => new ProblemFilter(hasCalls, log),
          inject: [LOG],
        },
      ],
      exports: [HttpCalls],
    };
  }

  configure(consumer: MiddlewareConsumer): void {
    consumer.apply(BrowserGuard).forRoutes('v1/*path');
  }
}
