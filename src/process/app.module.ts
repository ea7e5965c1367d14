import { type CanActivate, type DynamicModule, Module, type Type } from '@nestjs/common';
import type { Logger } from 'pino';
import type { Config } from '../config/config.js';
import { ConfigModule } from '../config/config.module.js';
import { FeedModule } from '../feed/feed.module.js';
import { GrpcDoor } from '../grpc/grpc-door.js';
import { GrpcModule } from '../grpc/grpc.module.js';
import { HttpCalls } from '../http/http-calls.js';
import { HttpModule } from '../http/http.module.js';
import { MetricsModule } from '../metrics/metrics.module.js';
import { LogModule } from '../telemetry/log.js';
import { TracingModule } from '../telemetry/tracing.module.js';
import type { Certificates } from '../tls/certificates.js';
import { TlsModule } from '../tls/tls.module.js';
import { DOORS, Drain } from './drain.js';
import type { Door } from '../feed/door.js';

/**
 * The whole application: a gRPC door and an HTTP door, both on one log, and the metrics of all of it.
 */
@Module({})
export class AppModule {
  /** @param guard takes the place of CallerGuard: it says who makes each call, or throws. HTTP then has the probes alone */
  static of(
    config: Config,
    log: Logger,
    certificates: Certificates | undefined,
    guard?: Type<CanActivate>,
  ): DynamicModule {
    const grpc = GrpcModule.of(guard);
    const http = HttpModule.of(guard === undefined);
    return {
      module: AppModule,
      imports: [
        ConfigModule.of(config),
        LogModule.of(log),
        TracingModule,
        TlsModule.of(certificates),
        FeedModule,
        grpc,
        http,
        MetricsModule.of(grpc),
      ],
      providers: [
        { provide: DOORS, useFactory: (...doors: Door[]) => doors, inject: [GrpcDoor, HttpCalls] },
        Drain,
      ],
    };
  }
}
