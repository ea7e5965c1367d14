import type { StreamApi } from '../../nats/stream-api.js';
import { FewAtOnce } from './few-at-once.js';

/** The server lists this many subjects at once. */
const PAGE = 100_000;
/** Pages after the first one come from a list that is not older than this (milliseconds). */
const KEPT_FOR = 60_000;

/** The topics whose subjects match a filter, in order, as the leader listed them at `at` (performance.now()). */
interface Listed {
  readonly filter: string;
  readonly at: number;
  readonly topics: readonly string[];
}

/**
 * Lists the topics of a stream. The leader can list all subjects below some tokens, and nothing finer, at about 50 bytes
 * of answer each: a list of 100,000 topics is some 5 MB.
 */
export class TopicListing {
  private last: Listed | undefined;
  /** One part at a time, because it is large: many at once would all come too late to be waited for. */
  private readonly asked = new FewAtOnce(1);

  constructor(
    private readonly api: StreamApi,
    /** The beginning of each topic's subject. */
    private readonly prefix: string,
  ) {}

  /**
   * Returns up to `limit` names of topics that begin with a prefix: the first ones as of now, and those after one of them as of
   * the last minute.
   *
   * @throws RefusedError, UnansweredError
   */
  async topics(prefix: string, after: string | undefined, limit: number): Promise<string[]> {
    const filter = this.prefix + tokensOf(prefix) + '>';
    const all =
      (after === undefined ? undefined : this.kept(filter)) ?? (await this.listAndKeep(filter));
    const found: string[] = [];
    for (const topic of all) {
      if (!topic.startsWith(prefix) || (after !== undefined && topic <= after)) continue;
      if (found.push(topic) === limit) break;
    }
    return found;
  }

  private kept(filter: string): readonly string[] | undefined {
    const { last } = this;
    return last?.filter === filter && performance.now() - last.at < KEPT_FOR
      ? last.topics
      : undefined;
  }

  /** Returns all topics of a pattern as of now. @throws RefusedError, UnansweredError */
  ofPattern(pattern: string): Promise<readonly string[]> {
    return this.list(this.prefix + pattern);
  }

  private async listAndKeep(filter: string): Promise<readonly string[]> {
    const at = performance.now();
    const topics = await this.list(filter);
    this.last = { filter, at, topics };
    return topics;
  }

  private async list(filter: string): Promise<readonly string[]> {
    const topics: string[] = [];
    for (;;) {
      const ask = () => this.api.info({ filter, offset: topics.length });
      const { state } = await this.asked.run(ask);
      const subjects = Object.keys(state.subjects ?? {});
      for (const subject of subjects) topics.push(subject.slice(this.prefix.length));
      if (subjects.length < PAGE) break;
    }
    return topics.toSorted();
  }
}

/** Returns the whole tokens of a prefix: `orders.eu.` of `orders.eu.pa`. */
function tokensOf(prefix: string): string {
  return prefix.slice(0, prefix.lastIndexOf('.') + 1);
}
