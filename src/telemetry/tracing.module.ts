import { Global, Module } from '@nestjs/common';
import type { Logger } from 'pino';
import { CONFIG, type Config } from '../config/config.js';
import { LOG } from './log.js';
import { openTracing } from './open-tracing.js';
import { TRACING } from './tracing.js';

/** Provides every module with Tracing, or undefined if no calls are traced. */
@Global()
@Module({
  providers: [
    {
      provide: TRACING,
      useFactory: ({ traces }: Config, log: Logger) =>
        traces && openTracing({ ...traces, notices: log }),
      inject: [CONFIG, LOG],
    },
  ],
  exports: [TRACING],
})
export class TracingModule {}
