import { Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';
import { Broker } from '../broker/broker.js';
import { LocalBroker } from '../broker/local-broker.js';
import { CONFIG, type Config } from '../config/config.js';
import { EventLog } from '../repository/event-log.js';
import { EventRepository } from '../repository/event-repository.js';
import { openLmdbLog } from '../repository/lmdb/lmdb-engine.js';
import { MemoryEngine } from '../repository/memory/memory-engine.js';
import { LOG } from '../telemetry/log.js';
import { Chats } from './chat.js';
import { OpenWork } from './open-work.js';
import { Readiness } from './readiness.js';
import { Uploads } from './upload.js';
import { Watches } from './watch.js';

function openRepository(config: Config, log: Logger): EventRepository | Promise<EventRepository> {
  const dedup = { ids: config.dedupIds, milliseconds: config.dedupWindow };
  const { engine, retention } = config;
  return engine === 'memory'
    ? new EventLog(new MemoryEngine(), { dedup, retention })
    : openLmdbLog({
        directory: config.dataDir,
        fsync: config.durability === 'fsync',
        dedup,
        retention,
        notices: log,
      });
}

/** The use cases, whatever the transport, on the log and the bell. */
@Module({
  providers: [
    { provide: EventRepository, useFactory: openRepository, inject: [CONFIG, LOG] },
    { provide: Broker, useClass: LocalBroker },
    Watches,
    Uploads,
    Chats,
    OpenWork,
    Readiness,
  ],
  exports: [EventRepository, Watches, Uploads, Chats, OpenWork, Readiness],
})
export class FeedModule implements OnApplicationShutdown {
  constructor(
    private readonly repository: EventRepository,
    @Inject(Broker) broker: Broker,
  ) {
    repository.onDurable((topics) => broker.ring(topics));
  }

  /** After both doors are closed. Nest logs what a hook throws, and drops it: run.ts asks for it again. */
  async onApplicationShutdown(): Promise<void> {
    await this.repository.close().catch(() => {});
  }
}
