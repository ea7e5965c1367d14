import type { RetentionLimits } from '../retention.js';
import type { Replica } from './replica.js';
import type { StreamApi } from '../../nats/stream-api.js';

/** How often (milliseconds) the janitor works, but several times within FEED_RETENTION_MAX_AGE: else the record could be removed meanwhile. */
const INTERVAL = 1_000;
const TIMES_WITHIN_AGE = 8;
const LEAST_INTERVAL = 50;
/** It looks at this many of them each time. */
const MOST_TOPICS = 1_000;

/**
 * Does what JetStream has no limit for: it removes the oldest runs of topics that are over FEED_RETENTION_TOPIC_MAX_BYTES,
 * and writes the record of the epochs again before retention removes it. The newest run of a topic that has events is never
 * removed, so its `previous` tells the topic's floor. Several replicas may do the same at once, which harms nothing.
 */
export class Janitor {
  private readonly timer: NodeJS.Timeout;
  private readonly written = new Set<string>();
  private isListed = false;
  private isWorking = false;

  constructor(
    private readonly api: StreamApi,
    private readonly replica: Replica,
    private readonly limits: RetentionLimits,
    private readonly prefix: string,
  ) {
    const { maxAge, topicMaxBytes } = limits;
    const interval =
      maxAge > 0
        ? Math.max(LEAST_INTERVAL, Math.min(INTERVAL, maxAge / TIMES_WITHIN_AGE))
        : INTERVAL;
    this.timer = setInterval(() => void this.work(), interval).unref();
    if (topicMaxBytes > 0) replica.onWritten = (topic) => void this.written.add(topic);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private async work(): Promise<void> {
    if (this.isWorking) return;
    this.isWorking = true;
    try {
      if (this.limits.topicMaxBytes > 0) await this.trimTopics();
      if (this.replica.isEpochsRecordOld()) await this.replica.writeEpochs(false);
    } catch {
      // The next time, it tries again.
    } finally {
      this.isWorking = false;
    }
  }

  private async trimTopics(): Promise<void> {
    if (!this.isListed) await this.list();
    let looks = 0;
    for (const topic of this.written) {
      if (looks++ === MOST_TOPICS) return;
      // An event that comes meanwhile notes it again.
      this.written.delete(topic);
      await this.trim(topic).catch((error: unknown) => {
        this.written.add(topic);
        throw error;
      });
    }
  }

  /** Notes all topics, because the limit may have been lowered before this start. */
  private async list(): Promise<void> {
    for (const topic of await this.replica.topicsOfPattern('>', 0)) this.written.add(topic);
    this.isListed = true;
  }

  private async trim(topic: string): Promise<void> {
    const { topicMaxBytes } = this.limits;
    const { stored } = this.replica;
    const last = await this.replica.newest(topic);
    const newest = last && (await stored.withEvents(last));
    const oldest = newest && (await stored.firstFrom(topic, 1));
    if (!newest || !oldest) return;
    const start = oldest.totalBytes - oldest.run.bytes.length;
    if (newest.totalBytes - start <= topicMaxBytes) return;
    const excess = newest.totalBytes - topicMaxBytes;
    const kept = await stored.firstWhere(
      topic,
      newest.sequence,
      ({ totalBytes, run }) => totalBytes - run.bytes.length >= excess,
    );
    await this.api.purge(this.prefix + topic, (kept ?? newest).sequence);
  }
}
