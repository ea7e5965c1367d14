import type { CheckedEvents } from '../../wire/check-events.js';
import { StoreUnavailableError } from '../event-repository.js';
import { mostNewTopics, type Refusals, refuseNewTopics, type TopicLimit } from '../topic-limit.js';
import { unavailable } from './commits.js';
import type { History } from './history.js';
import { inParts } from './in-parts.js';
import type { LogState } from './log-state.js';
import type { StoredRuns } from './stored-runs.js';

/**
 * The limit of a log that several replicas write to. Each looks for itself before it builds a commit, so replicas that store
 * new topics at the same moment may exceed the limit by those. NATS is asked only where the limit may be reached, and only
 * about topics that this replica has not met: events of others cost nothing.
 */
export class SharedTopicLimit implements TopicLimit {
  constructor(
    private readonly most: number,
    private readonly state: LogState,
    private readonly history: History,
    private readonly stored: StoredRuns,
  ) {}

  /** Rejects with an AppendError where NATS does not answer. */
  refusals(appends: readonly CheckedEvents[]): Promise<Refusals> | undefined {
    if (this.state.mostTopics + mostNewTopics(appends) <= this.most) return undefined;
    const unknown = new Set<string>();
    for (const { topics } of appends)
      for (const { topic } of topics) if (!this.state.topics.get(topic)) unknown.add(topic);
    if (unknown.size === 0) return undefined;
    return this.ask(appends, unknown).catch((error: unknown) => {
      throw error instanceof StoreUnavailableError ? unavailable(error.message) : error;
    });
  }

  private async ask(appends: readonly CheckedEvents[], unknown: Set<string>): Promise<Refusals> {
    const { history, state } = this;
    const { applied } = state;
    // A leader that lags may not know yet a topic that has events.
    const info = await history.ask(() => history.leaderHas(applied));
    // One subject has the records of the epochs, and stays.
    const held = Math.max(0, (info.state.num_subjects ?? 0) - 1);
    state.mostTopics = held + 1;
    await inParts([...unknown], async (topic) => {
      if (await history.ask(() => this.stored.newest(topic))) unknown.delete(topic);
    });
    return refuseNewTopics(appends, this.most, held, (topic) => !unknown.has(topic));
  }
}
