import { type DynamicModule, Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { CONFIG, type Config } from '../config/config.js';
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
import { diskMetrics, logMetrics, natsMetrics } from './log-metrics.js';
import { MetricsPage } from './metrics-page.js';
import { MetricsPort } from './metrics-port.js';
import { MetricsController } from './metrics.controller.js';
import { processMetrics } from './process-metrics.js';

function createPage(
  config: Config,
  repository: EventRepository,
  calls: LiveCalls,
  ended: CallCounts,
  { connections }: StreamStrategy,
  ports: PortCounts,
  hits: LimitHits,
  rates: UploadRates,
  traffic: Traffic,
  watches: Watches,
  lag: WatchLag,
  chats: Chats,
  readiness: Readiness,
  delay: EventLoopDelay,
): MetricsPage {
  const { engine, retention } = config;
  const definitions = [
    ...callMetrics(calls, ended, connections, ports, hits, rates),
    ...eventMetrics(traffic, watches, chats, repository.report),
    ...logMetrics(repository, retention.quotaBytes),
    ...(engine === 'lmdb' ? diskMetrics() : []),
    ...(engine === 'jetstream' ? natsMetrics(repository) : []),
    ...processMetrics(config, repository.durability, readiness, delay),
  ];
  return new MetricsPage(definitions, repository, lag);
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
        {
          provide: MetricsPage,
          useFactory: createPage,
          inject: [
            CONFIG,
            EventRepository,
            LiveCalls,
            CallCounts,
            StreamStrategy,
            PortCounts,
            LimitHits,
            UploadRates,
            Traffic,
            Watches,
            WatchLag,
            Chats,
            Readiness,
            EventLoopDelay,
          ],
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
