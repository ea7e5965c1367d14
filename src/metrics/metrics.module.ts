import {
  type Abstract,
  type DynamicModule,
  type FactoryProvider,
  Inject,
  Module,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { CONFIG } from '../config/config.js';
import { CallCounts } from '../feed/call-counts.js';
import { Chats } from '../feed/chat.js';
import { FeedModule } from '../feed/feed.module.js';
import { LimitHits } from '../feed/limit-hits.js';
import { LiveCalls } from '../feed/live-calls.js';
import { Readiness } from '../feed/readiness.js';
import { Traffic } from '../feed/traffic.js';
import { UploadRates } from '../feed/upload-rates.js';
import { WatchLag } from '../feed/watch-lag.js';
import { Watches } from '../feed/watch.js';
import { StreamStrategy } from '../grpc/transport/index.js';
import { EventRepository } from '../repository/event-repository.js';
import { EventLoopDelay } from '../telemetry/event-loop-delay.js';
import { PortCounts } from '../telemetry/port-counts.js';
import { callMetrics } from './call-metrics.js';
import { eventMetrics } from './event-metrics.js';
import type { Definition } from './definition.js';
import { engineMetrics, logMetrics } from './log-metrics.js';
import { MetricsPage } from './metrics-page.js';
import { MetricsPort } from './metrics-port.js';
import { MetricsController } from './metrics.controller.js';
import { processMetrics } from './process-metrics.js';

/** Each function that makes metrics, with the providers that it takes. */
const GROUPS = [
  group(callMetrics, LiveCalls, CallCounts, StreamStrategy, PortCounts, LimitHits, UploadRates),
  group(eventMetrics, Traffic, Watches, Chats, EventRepository),
  group(logMetrics, EventRepository, CONFIG),
  group(engineMetrics, EventRepository, CONFIG),
  group(processMetrics, CONFIG, EventRepository, Readiness, EventLoopDelay),
];

/** Provides what `make` returns for what is injected, which must be what `make` takes. */
function group<Parts extends unknown[]>(
  make: (...parts: Parts) => Definition[],
  ...inject: { [Part in keyof Parts]: Abstract<Parts[Part]> | typeof CONFIG }
): FactoryProvider<Definition[]> {
  return { provide: make, useFactory: (...parts) => make(...(parts as Parts)), inject };
}

/** The page of metrics: on the HTTP port, or on one of its own. */
@Module({})
export class MetricsModule implements OnApplicationShutdown {
  /** @param grpc the module of the gRPC door, whose connections are counted */
  static of(grpc: DynamicModule): DynamicModule {
    return {
      module: MetricsModule,
      imports: [FeedModule, grpc],
      controllers: [MetricsController],
      providers: [
        EventLoopDelay,
        ...GROUPS,
        {
          provide: MetricsPage,
          useFactory: (repository: EventRepository, lag: WatchLag, ...groups: Definition[][]) =>
            new MetricsPage(groups.flat(), repository, lag),
          inject: [EventRepository, WatchLag, ...GROUPS.map(({ provide }) => provide)],
        },
        MetricsPort,
      ],
    };
  }

  constructor(@Inject(EventLoopDelay) private readonly delay: EventLoopDelay) {}

  onApplicationShutdown(): void {
    this.delay.stop();
  }
}
