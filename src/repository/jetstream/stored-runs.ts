import type { Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch, joined } from '../../wire/event-batch.js';
import { EventsRemovedError } from '../event-repository.js';
import type { History } from './history.js';
import { decode, endOf, type RunMessage, sequenceOf } from './message.js';
import type { MessageQuery, StoredMessage, StreamApi } from '../../nats/stream-api.js';
import { FewAtOnce } from './few-at-once.js';

/** More than what is read is asked for, because heads and ids are not counted, and the last run may be cut off. */
export const READ_AHEAD = 16 * 1024;

/**
 * This many questions are asked at a time, and answered with some 50 KiB each. Thousands of watches may be behind the tail at once. All
 * answers come over one connection: too many would come too late to be waited for, behind them those to commits and the tail's messages,
 * and the server ends a connection for which over 64 MB wait (its `max_pending`).
 */
const QUESTIONS_AT_ONCE = 16;

/**
 * The runs of a stream, read from its servers. Any server answers direct gets, also one that lags: so each run must follow
 * the one before it (`previous`), and only the leader is believed that there are no more, once it has all that this replica has.
 */
export class StoredRuns {
  private readonly asked = new FewAtOnce(QUESTIONS_AT_ONCE);

  constructor(
    private readonly api: StreamApi,
    private readonly history: Pick<History, 'fromLeader' | 'leaderHas'>,
    /** The beginning of each topic's subject. */
    private readonly prefix: string,
  ) {}

  /**
   * Returns events of a topic after a position and up to another: the first run, and further ones up to `maxBytes`. Returns
   * 'later' if the topic's next events are later than that, and 'none' if none are held, which says nothing of those that
   * were removed.
   *
   * @throws EventsRemovedError if older events than those found are missing, RefusedError, UnansweredError
   */
  async read(
    topic: string,
    after: Position,
    upTo: Position,
    maxBytes: number,
  ): Promise<EventBatch | 'later' | 'none'> {
    const found = await this.messages(topic, sequenceOf(after) + 1, maxBytes + READ_AHEAD);
    let [first] = found;
    // The run of `after` itself may have further events.
    if (!first || first.previous > after) {
      found.length = 0;
      for (let sequence = Math.max(1, sequenceOf(after)); ; sequence = first.sequence + 1) {
        const next = await this.firstFrom(topic, sequence);
        if (!next) return 'none';
        first = next;
        if (first.run.last > after) break;
      }
      if (first.run.first > after && first.previous > after) throw new EventsRemovedError();
      found.push(first);
    }
    const parts: EventBatch[] = [];
    let bytes = 0;
    let last = first.previous;
    for (const { run, previous } of found) {
      if (run.last > upTo || previous !== last) break;
      if (run.count === 0) continue;
      const part = run.first > after ? run : cutAfter(run, after);
      bytes += part.bytes.length;
      if (parts.length > 0 && bytes > maxBytes) break;
      parts.push(part);
      ({ last } = run);
    }
    return parts.length === 0 ? 'later' : joined(parts);
  }

  /**
   * Returns runs of the topics of a pattern from a sequence on, up to about `maxBytes` of them; none only if the leader has none.
   * Between the first and the last one, runs are missing that were removed: at least by the server that answered, which may do so a
   * moment before the leader.
   *
   * @throws RefusedError, UnansweredError
   */
  async ofPattern(pattern: string, from: number, maxBytes: number): Promise<RunMessage[]> {
    const found = await this.messages(pattern, from, maxBytes);
    if (found[0]?.sequence === from) return found;
    // A server that lags may have none yet, and another one may have removed the first ones before the leader does.
    const first = await this.firstFrom(pattern, from);
    if (!first) return [];
    return first.sequence === found[0]?.sequence ? found : [first];
  }

  /**
   * Returns the oldest run of a topic, or of the topics of a pattern, from a sequence on, as the leader knows it once it has all that
   * this replica has.
   */
  firstFrom(topic: string, sequence: number): Promise<RunMessage | undefined> {
    return this.history.fromLeader(() => this.first(topic, sequence));
  }

  private async first(topic: string, sequence: number): Promise<RunMessage | undefined> {
    return this.run(await this.message({ seq: sequence, next_by_subj: this.prefix + topic }));
  }

  /** Returns a topic's newest run, as the leader knows it, which may be behind this replica. */
  async newest(topic: string): Promise<RunMessage | undefined> {
    return this.run(await this.message({ last_by_subj: this.prefix + topic }));
  }

  /** Returns the newest run with events up to a run of their topic: for a marker, the one before it. Undefined if it was removed. */
  async withEvents(newest: RunMessage): Promise<RunMessage | undefined> {
    if (newest.run.count > 0) return newest;
    return newest.previous > 0 ? this.at(sequenceOf(newest.previous)) : undefined;
  }

  /** Returns a position up to which nothing is held of any topic, as the leader knows it once it has a sequence. */
  async floorOfStream(upTo: number): Promise<Position> {
    const { state } = await this.history.leaderHas(upTo);
    return state.first_seq > 1 ? endOf(state.first_seq - 1) : 0;
  }

  /** Returns the run at a sequence, if one is held there. */
  async at(sequence: number): Promise<RunMessage | undefined> {
    return this.run(await this.message({ seq: sequence }));
  }

  /**
   * Returns a topic's oldest run up to a sequence that this replica has, if one meets a condition. It is a binary search: if a run
   * meets it, all newer ones must, too.
   */
  async firstWhere(
    topic: string,
    upTo: number,
    condition: (message: RunMessage) => boolean,
  ): Promise<RunMessage | undefined> {
    await this.history.leaderHas(upTo);
    let found: RunMessage | undefined;
    let low = 1;
    let high = upTo;
    while (low <= high) {
      const middle = Math.floor((low + high) / 2);
      const run = await this.first(topic, middle);
      const isBelow = run !== undefined && run.sequence <= upTo;
      if (isBelow && !condition(run)) {
        low = run.sequence + 1;
      } else {
        if (isBelow) found = run;
        high = middle - 1;
      }
    }
    return found;
  }

  private async messages(topic: string, from: number, maxBytes: number): Promise<RunMessage[]> {
    const ask = () => this.api.messages(this.prefix + topic, from, maxBytes);
    const messages = await this.asked.run(ask);
    return messages.flatMap((message) => this.run(message) ?? []);
  }

  private message(query: MessageQuery): Promise<StoredMessage | undefined> {
    return this.asked.run(() => this.api.message(query));
  }

  private run(message: StoredMessage | undefined): RunMessage | undefined {
    if (!message) return undefined;
    const topic = message.subject.slice(this.prefix.length);
    const decoded = decode(message.sequence, topic, message.data);
    return decoded.kind === 'run' ? decoded : undefined;
  }
}
