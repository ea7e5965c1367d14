import type { Config } from '../config/config.js';
import type { EventRepository, LogStatus, StoredAt } from '../repository/event-repository.js';
import type { Definition, Readings } from './definition.js';

/** The log: its commits, its size, its ends and its disk. */
export function logMetrics(
  { report }: EventRepository,
  { retention }: Pick<Config, 'retention'>,
): Definition[] {
  return [
    {
      type: 'histogram',
      name: 'feed_commit_seconds',
      help: 'How long each commit took until it was durable, with what it removed.',
      histogram: report.commitSeconds,
    },
    {
      type: 'histogram',
      name: 'feed_commit_bytes',
      help: 'How many bytes of events each commit stored.',
      histogram: report.commitBytes,
    },
    {
      type: 'counter',
      name: 'feed_commits_failed_total',
      help: 'Commits that failed, with all uploads in them, or had no room for some of their uploads: storage-full (STORAGE_FULL), unavailable (STORE_UNAVAILABLE) or refused (INSERT_FAILED).',
      labels: ['reason'],
      read: () =>
        Object.entries(report.failedCommits).map(([reason, value]) => ({
          labels: { reason },
          value,
        })),
    },
    gauge('feed_log_bytes', 'The bytes of all events that are held.', ({ heldBytes }) => heldBytes),
    gauge(
      'feed_log_quota_bytes',
      'FEED_QUOTA_BYTES; 0 without a quota.',
      () => retention.quotaBytes,
    ),
    gauge(
      'feed_log_head_position',
      'The position of the newest event. It grows by one with each event, and with jetstream by 2048 with each run of events.',
      ({ newest }) => newest?.position,
    ),
    gauge(
      'feed_log_head_timestamp_seconds',
      'When the newest event was stored, in seconds since 1970.',
      ({ newest }) => secondsOf(newest),
    ),
    gauge(
      'feed_log_earliest_position',
      'The position of the oldest event that is held.',
      ({ oldest }) => oldest?.position,
    ),
    gauge(
      'feed_log_earliest_timestamp_seconds',
      'When the oldest event that is held was stored, in seconds since 1970.',
      ({ oldest }) => secondsOf(oldest),
    ),
  ];
}

/** The metrics that only the engine in use has. */
export function engineMetrics(
  repository: EventRepository,
  { engine }: Pick<Config, 'engine'>,
): Definition[] {
  if (engine === 'lmdb') return diskMetrics();
  if (engine === 'jetstream') return natsMetrics(repository);
  return [];
}

/** The file of the log, and its disk. */
function diskMetrics(): Definition[] {
  return [
    gauge(
      'feed_log_file_bytes',
      'The size of the file of the log, which keeps the room of what was removed.',
      ({ disk }) => disk?.fileBytes,
    ),
    gauge('feed_disk_bytes', 'The size of the disk of the log.', ({ disk }) => disk?.size),
    gauge('feed_disk_free_bytes', 'What is free on the disk of the log.', ({ disk }) => disk?.free),
  ];
}

/** The connection to NATS, and the other replicas. */
function natsMetrics({ report }: EventRepository): Definition[] {
  return [
    gauge('feed_nats_connected', '1 while there is a connection to NATS, else 0.', ({ nats }) =>
      Number(nats?.isConnected ?? false),
    ),
    gauge(
      'feed_nats_tail_lag_messages',
      'How many messages of the stream this replica has not applied yet.',
      ({ nats }) => nats?.lag,
    ),
    gauge(
      'feed_nats_unacknowledged_seconds',
      'For how long a commit has waited for its acknowledgement by NATS; 0 if none does.',
      () => {
        const { unacknowledgedSince: since } = report;
        return since === undefined ? 0 : (performance.now() - since) / 1000;
      },
    ),
    {
      type: 'counter',
      name: 'feed_nats_commits_refused_total',
      help: 'Commits that NATS refused because another replica had stored something first. They were built again.',
      read: () => report.overtakenCommits,
    },
    {
      type: 'counter',
      name: 'feed_nats_commits_repeated_total',
      help: 'Commits that were sent to NATS once more, because no answer came.',
      read: () => report.repeatedCommits,
    },
  ];
}

const gauge = (
  name: string,
  help: string,
  read: (log: LogStatus) => number | undefined,
): Definition => ({ type: 'gauge', name, help, read: ({ log }: Readings) => read(log) });

const secondsOf = (stored: StoredAt | undefined): number | undefined =>
  stored && stored.time / 1000;
