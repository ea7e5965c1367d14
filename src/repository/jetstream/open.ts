import type { NatsConnection } from '@nats-io/transport-node';
import { connectOnce, connectPatiently, type NatsServers } from '../../nats/connect.js';
import type { Notices } from '../../telemetry/notices.js';
import { SetupError } from '../../nats/setup-error.js';
import type { QueueBytes } from '../append-queue.js';
import type { DedupWindow } from '../event-repository.js';
import type { RetentionLimits } from '../retention.js';
import { findDurability } from './durability.js';
import { JetStreamLog } from './jetstream-log.js';

/** The stream, its servers, and how Feed finds out what they do. */
export interface NatsSettings extends NatsServers {
  readonly stream: string;
  readonly replicas: number;
  readonly monitorUrls: readonly string[];
  readonly systemCredentials: string | undefined;
  readonly isFlushVouched: boolean;
  /** Milliseconds. */
  readonly patience: number;
}

export interface OpenOptions {
  readonly nats: NatsSettings;
  /** False: any cluster will do, and an acknowledgement means little. */
  readonly flushes: boolean;
  readonly maxEventBytes: number;
  readonly dedup: DedupWindow;
  readonly retention: RetentionLimits;
  readonly maxTopics: number;
  readonly queueBytes: QueueBytes;
  readonly notices: Notices;
}

/** The first version of nats-server with atomic batches. */
const LEAST_VERSION = [2, 12] as const;
/** The room (bytes) that a message needs beside its largest event: for the head, ids, the subject and headers. */
const BYTES_BESIDE_EVENT = 64 * 1024;

/**
 * Opens the log of a JetStream stream. Waits as long as NATS can't be reached.
 *
 * @throws SetupError if the servers, the stream or the settings are such that promises would not hold
 */
export async function openJetStreamLog(options: OpenOptions): Promise<JetStreamLog> {
  const { nats, flushes, maxEventBytes, dedup, retention, maxTopics, queueBytes, notices } =
    options;
  const connection = await connectPatiently(nats, notices);
  try {
    refuseUnusableServer(connection, maxEventBytes);
    const systemCredentials = nats.systemCredentials;
    const finding = flushes
      ? await findDurability(nats.replicas, {
          monitorUrls: nats.monitorUrls,
          connectToSystem:
            systemCredentials === undefined
              ? undefined
              : () =>
                  connectOnce(
                    { ...nats, credentials: systemCredentials },
                    'FEED_NATS_SYSTEM_CREDENTIALS',
                  ),
          isVouched: nats.isFlushVouched,
        })
      : undefined;
    if (finding?.servers?.silent.length) notices.warn(finding.reason);
    else if (finding) notices.info(finding.reason);
    if (retention.maxBytes === 0 && retention.quotaBytes === 0)
      notices.warn(
        'the stream has no limit of bytes, and a full disk stops JetStream, reads too: set FEED_RETENTION_MAX_BYTES ' +
          'or FEED_QUOTA_BYTES below what the disks of the NATS servers have',
      );
    return await JetStreamLog.open({
      connection,
      stream: nats.stream,
      replicas: nats.replicas,
      durability: finding?.durability ?? 'memory',
      servers: finding?.servers,
      dedup,
      retention,
      maxTopics,
      queueBytes,
      patience: nats.patience,
      notices,
    });
  } catch (error) {
    await connection.close();
    throw error;
  }
}

function refuseUnusableServer({ info }: NatsConnection, maxEventBytes: number): void {
  const { version = '0.0.0', max_payload: maxPayload = 0 } = info ?? {};
  const [major, minor] = version.split('.').map(Number);
  if (major < LEAST_VERSION[0] || (major === LEAST_VERSION[0] && minor < LEAST_VERSION[1]))
    throw new SetupError(
      `the NATS server has version ${version}; Feed needs ${LEAST_VERSION.join('.')} or later`,
    );
  const needed = maxEventBytes + BYTES_BESIDE_EVENT;
  if (maxPayload < needed)
    throw new SetupError(
      `the NATS server takes messages of up to ${maxPayload} bytes, and ${needed} are needed: raise its max_payload ` +
        '(8MB is its recommended most; in the NATS chart: config.merge.max_payload), or lower FEED_MAX_EVENT_BYTES',
    );
}
