import { Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import type { Logger } from 'pino';
import { Bell } from '../broker/bell.js';
import { LocalBell } from '../broker/local-bell.js';
import { LocalRooms } from '../broker/local-rooms.js';
import { Rooms } from '../broker/rooms.js';
import { SharedRooms } from '../broker/shared-rooms.js';
import { CONFIG, type Config } from '../config/config.js';
import { EventLog } from '../repository/event-log.js';
import { EventRepository } from '../repository/event-repository.js';
import { openJetStreamLog } from '../repository/jetstream/open.js';
import { openLmdbLog } from '../repository/lmdb/lmdb-engine.js';
import { MemoryEngine } from '../repository/memory/memory-engine.js';
import { LOG } from '../telemetry/log.js';
import { Backups } from './backups.js';
import { CallCounts } from './call-counts.js';
import { CallLimits } from './call-limits.js';
import { Chats } from './chat.js';
import { HeadHistory } from './head-history.js';
import { LimitHits } from './limit-hits.js';
import { LiveCalls } from './live-calls.js';
import { OpenWork } from './open-work.js';
import { Readiness } from './readiness.js';
import { RecentSteps } from './recent-steps.js';
import { Stats } from './stats.js';
import { Traffic } from './traffic.js';
import { ReplicaName } from './replica-name.js';
import { Streams } from './streams.js';
import { Subscriptions } from './subscriptions.js';
import { Topics } from './topics.js';
import { UploadRates } from './upload-rates.js';
import { Uploads } from './upload.js';
import { WatchLag } from './watch-lag.js';
import { WatchNotices } from './watch-notices.js';
import { Watches } from './watch.js';

function openRepository(config: Config, log: Logger): EventRepository | Promise<EventRepository> {
  const dedup = { ids: config.dedupIds, milliseconds: config.dedupWindow };
  const { engine, retention, nats, maxEventBytes, maxTopics, unstored } = config;
  const limits = {
    dedup,
    retention,
    maxTopics,
    queueBytes: { ofWriter: unstored.perUpload, inAll: unstored.inAll },
  };
  const flushes = config.durability === 'fsync';
  switch (engine) {
    case 'memory':
      return new EventLog(new MemoryEngine(), { ...limits, notices: log });
    case 'lmdb':
      return openLmdbLog({
        directory: config.dataDir,
        fsync: flushes,
        ...limits,
        notices: log,
      });
    case 'jetstream':
      return openJetStreamLog({ nats, flushes, maxEventBytes, ...limits, notices: log });
  }
}

/**
 * Comes after the log is open: JetStream counts the streams of an account when one is made, and two that are made at once
 * can both pass a limit of one.
 */
function openRooms({ engine, nats }: Config, log: Logger): Rooms | Promise<Rooms> {
  return engine === 'jetstream' ? SharedRooms.open(nats, log) : new LocalRooms();
}

/** The use cases, whatever the transport, on the log, the bell and the rooms. */
@Module({
  providers: [
    { provide: EventRepository, useFactory: openRepository, inject: [CONFIG, LOG] },
    { provide: Bell, useClass: LocalBell },
    { provide: Rooms, useFactory: openRooms, inject: [CONFIG, LOG, EventRepository] },
    {
      provide: Traffic,
      useFactory: ({ metricsTopics }: Config) => new Traffic(metricsTopics),
      inject: [CONFIG],
    },
    CallCounts,
    LimitHits,
    Watches,
    HeadHistory,
    WatchLag,
    WatchNotices,
    {
      provide: UploadRates,
      useFactory: ({ uploadRate }: Config) => new UploadRates(uploadRate),
      inject: [CONFIG],
    },
    {
      provide: Uploads,
      useFactory: (
        repository: EventRepository,
        rates: UploadRates,
        traffic: Traffic,
        hits: LimitHits,
        { maxEventBytes }: Config,
      ) => new Uploads(repository, rates, traffic, hits, maxEventBytes),
      inject: [EventRepository, UploadRates, Traffic, LimitHits, CONFIG],
    },
    {
      provide: Chats,
      useFactory: (
        rooms: Rooms,
        { maxRooms }: Config,
        traffic: Traffic,
        hits: LimitHits,
        subscriptions: Subscriptions,
      ) => new Chats(rooms, maxRooms, traffic, hits, subscriptions),
      inject: [Rooms, CONFIG, Traffic, LimitHits, Subscriptions],
    },
    LiveCalls,
    {
      provide: Subscriptions,
      useFactory: ({ maxSubscriptions }: Config, calls: LiveCalls, hits: LimitHits) =>
        new Subscriptions(maxSubscriptions, calls, hits),
      inject: [CONFIG, LiveCalls, LimitHits],
    },
    {
      provide: CallLimits,
      useFactory: ({ maxCalls }: Config, calls: LiveCalls, hits: LimitHits) =>
        new CallLimits(maxCalls, calls, hits),
      inject: [CONFIG, LiveCalls, LimitHits],
    },
    OpenWork,
    Readiness,
    ReplicaName,
    Topics,
    Streams,
    RecentSteps,
    Stats,
    Backups,
  ],
  exports: [
    EventRepository,
    Watches,
    WatchLag,
    Uploads,
    UploadRates,
    Chats,
    LiveCalls,
    CallCounts,
    CallLimits,
    LimitHits,
    OpenWork,
    Readiness,
    ReplicaName,
    Topics,
    Traffic,
    Streams,
    Stats,
    Backups,
  ],
})
export class FeedModule implements OnApplicationShutdown {
  constructor(
    private readonly repository: EventRepository,
    @Inject(Bell) bell: Bell,
    @Inject(Rooms) private readonly rooms: Rooms,
  ) {
    repository.onDurable((topics) => bell.ring(topics));
  }

  /**
   * Nest calls this after both doors are closed. It would log an error of close() and go on, so src/process/run.ts calls
   * close() again and gets the same error.
   */
  async onApplicationShutdown(): Promise<void> {
    await this.repository.close().catch(() => {});
    await this.rooms.close();
  }
}
