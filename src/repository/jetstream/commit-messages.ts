import { randomBytes } from 'node:crypto';
import { OvertakenError } from '../append-queue.js';
import type { LogClock } from '../log-clock.js';
import { idCount } from '../recent-ids.js';
import { bytesOf, type StoredRun } from '../stored-run.js';
import type { History } from './history.js';
import { inParts } from './in-parts.js';
import { type LogState, MESSAGE_OVERHEAD } from './log-state.js';
import {
  encodeEpochs,
  encodeRun,
  endOf,
  firstOf,
  headAfter,
  markerOf,
  type Message,
  POSITIONS,
} from './message.js';
import type { StoredRuns } from './stored-runs.js';
import type { TopicState } from './topic-states.js';

export interface CommitMessagesOptions {
  readonly prefix: string;
  readonly epochsSubject: string;
  /** True if ids are stored, because deduplication needs them. */
  readonly storesIds: boolean;
  readonly clock: LogClock;
  /** Returns true if the record of the epochs must be written again once this many more bytes are stored. */
  readonly isEpochsRecordOld: (moreBytes: number) => boolean;
}

/** A message to be stored, and what it says. */
export interface Outgoing {
  readonly message: Message;
  readonly subject: string;
  readonly data: Uint8Array;
  readonly marker?: Marker;
}

/** The marker of a topic's removal. Its sequence is 0 until it is stored. */
export interface Marker {
  readonly topic: string;
  sequence: number;
}

/** One atomic batch of JetStream has at most 1,000 messages. */
export const MAX_BATCH = 1_000;
const NO_IDS = new Uint32Array(0);

/** Makes the messages of each commit: its runs, the markers of removed topics and, when it is due, the record of the epochs. */
export class CommitMessages {
  /** True if the next commit adds a record of the epochs. */
  private writesEpochs = false;
  private isEpochNew = false;
  /** The topics that the next commit marks as removed. */
  private readonly removals = new Set<Marker>();

  constructor(
    private readonly state: LogState,
    private readonly history: History,
    private readonly stored: StoredRuns,
    private readonly options: CommitMessagesOptions,
  ) {}

  /** True until the record of the epochs that requestEpochs() asked for is stored. */
  get areEpochsDue(): boolean {
    return this.writesEpochs;
  }

  /** True if that record begins an epoch. No events come with it: their cursors would be of the epoch before. */
  get beginsEpoch(): boolean {
    return this.isEpochNew;
  }

  /** The next commit adds a record of all epochs, and of a new one if `begins`. */
  requestEpochs(begins: boolean): void {
    this.writesEpochs = true;
    this.isEpochNew ||= begins;
  }

  /**
   * The next commit marks that events of a topic were removed, which is true once the topic's messages before the removal are purged.
   * Events that came after the removal began stay: they stand before the marker, or in its commit.
   */
  requestMarker(topic: string): Readonly<Marker> {
    const marker = { topic, sequence: 0 };
    this.removals.add(marker);
    return marker;
  }

  cancelMarker(marker: Readonly<Marker>): void {
    this.removals.delete(marker);
  }

  /** Call it once the messages of a commit are stored. */
  onStored(messages: readonly Outgoing[]): void {
    for (const { message, marker } of messages) {
      if (marker) marker.sequence = message.sequence;
      if (message.kind === 'epochs') this.writesEpochs = this.isEpochNew = false;
    }
  }

  /**
   * Returns the messages of a commit of these runs, in the order in which they are to be stored: runs, markers, record.
   *
   * @param ids the ids of the runs' events, in order
   * @throws OvertakenError if another replica has stored an event of one of the topics that this one has not applied yet
   */
  async build(runs: readonly StoredRun[], ids: readonly Uint32Array[]): Promise<Outgoing[]> {
    const { prefix, epochsSubject, storesIds, clock, isEpochsRecordOld } = this.options;
    const commit = randomBytes(8);
    const markers = [...this.removals].slice(0, MAX_BATCH - runs.length);
    const topics = await this.statesOf(new Set([...runs, ...markers].map(({ topic }) => topic)));
    const idsOf = storesIds ? idsByRun(ids) : () => NO_IDS;
    const messages: Outgoing[] = [];
    let { newest: before, allIds } = this.state;
    const nextSequence = () => this.state.applied + 1 + messages.length;
    const add = (run: StoredRun, runIds: Uint32Array, marker?: Marker): void => {
      const { topic, count, last, bytes, storedAt } = run;
      const was = topics.get(topic)!;
      const total = was.total + count;
      const totalBytes = was.totalBytes + bytes.length;
      topics.set(topic, { last, total, totalBytes });
      allIds += idCount(runIds);
      const message: Message = {
        kind: 'run',
        sequence: nextSequence(),
        run,
        ids: runIds,
        previous: was.last,
        total,
        totalBytes,
        commit,
        storedAt,
        before,
        allIds,
      };
      messages.push({ message, subject: prefix + topic, data: encodeRun(message), marker });
      before = headAfter(message);
    };
    for (const run of runs) {
      if (run.first !== firstOf(nextSequence()) || run.count >= POSITIONS - 1)
        throw new Error(
          `a run of ${run.count} events at ${run.first} can't be message ${nextSequence()}`,
        );
      add(run, idsOf(run));
    }
    // Searches by time rely on it that no message is older than the one before.
    const markedAt = runs.at(-1)?.storedAt ?? this.state.storedAt;
    for (const marker of markers) {
      const { last } = topics.get(marker.topic)!;
      add(markerOf(marker.topic, last, markedAt), NO_IDS, marker);
    }
    const bytes = bytesOf(runs) + MESSAGE_OVERHEAD * messages.length;
    const lag = clock.lag();
    const isRecordDue = this.writesEpochs || isEpochsRecordOld(bytes) || lag > this.state.lag;
    if (isRecordDue && messages.length < MAX_BATCH) {
      const sequence = nextSequence();
      const { epochs, storedAt } = this.state;
      // It begins after all positions of the messages before, because floors are such positions, too (endOf()).
      const after = sequence === 1 ? 0 : endOf(sequence - 1);
      const { starts } = this.isEpochNew ? epochs.begun(after) : epochs;
      const record = { starts, lag, commit, storedAt, before, allIds };
      messages.push({
        message: { kind: 'epochs', sequence, ...record },
        subject: epochsSubject,
        data: encodeEpochs(record),
      });
    }
    return messages;
  }

  /** Returns the states of topics, as of `applied`. Asks the stream for those that this replica has not met. */
  private async statesOf(topics: ReadonlySet<string>): Promise<Map<string, TopicState>> {
    const states = new Map<string, TopicState>();
    const unknown: string[] = [];
    for (const topic of topics) {
      const state = this.state.topics.get(topic);
      if (state) states.set(topic, state);
      else unknown.push(topic);
    }
    if (unknown.length === 0) return states;
    const { applied } = this.state;
    // A leader that lags names an older run as the newest one. A message that follows that one contradicts what other replicas have.
    await this.history.ask(() => this.history.leaderHas(applied));
    await inParts(unknown, async (topic) => void states.set(topic, await this.learn(topic)));
    return states;
  }

  private async learn(topic: string): Promise<TopicState> {
    const { applied } = this.state;
    const newest = await this.history.ask(() => this.stored.newest(topic));
    if (!newest) {
      // Nobody knows where the newest removed event was: anywhere before what the stream holds.
      const last = await this.history.ask(() => this.stored.floorOfStream(applied));
      return { last, total: 0, totalBytes: 0 };
    }
    if (newest.sequence > applied) throw new OvertakenError(newest.sequence);
    const { run, total, totalBytes } = newest;
    return { last: run.last, total, totalBytes };
  }
}

/** Returns a function that takes a commit's ids run by run, in order. */
function idsByRun(parts: readonly Uint32Array[]): (run: StoredRun) => Uint32Array {
  let part = 0;
  return ({ count }) => {
    const ids = new Uint32Array(2 * count);
    for (let at = 0; at < ids.length; at += parts[part++].length) ids.set(parts[part], at);
    return ids;
  };
}
