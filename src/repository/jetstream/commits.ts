import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CODE,
  type ExpectedStream,
  RefusedError,
  type StreamApi,
  UnansweredError,
} from '../../nats/stream-api.js';
import type { Position } from '../../wire/cursor.js';
import { OvertakenError, type SharedLog } from '../append-queue.js';
import type { Commit } from '../commit.js';
import { AppendError, StoreUnavailableError } from '../event-repository.js';
import type { LogReport } from '../log-report.js';
import { bytesOf, type StoredRun } from '../stored-run.js';
import { type History, RETRY_INTERVAL } from './history.js';
import { inParts } from './in-parts.js';
import { type LogState, MESSAGE_OVERHEAD } from './log-state.js';
import {
  commitOf,
  encodeEpochs,
  encodeRun,
  endOf,
  firstOf,
  headAfter,
  markerOf,
  type Message,
  POSITIONS,
  sequenceOf,
} from './message.js';
import type { StoredIds } from './stored-ids.js';
import type { StoredRuns } from './stored-runs.js';
import type { TopicState } from './topic-states.js';

export interface CommitOptions {
  readonly prefix: string;
  /** True if ids are stored, because deduplication needs them. */
  readonly storesIds: boolean;
  /** Returns true if the record of the epochs must be written again once this many more bytes are stored. */
  readonly isEpochsRecordOld: (moreBytes: number) => boolean;
  /** How long (milliseconds) a commit waits for NATS. */
  readonly patience: number;
  readonly report: LogReport;
}

/** A message to be stored, and what it says. */
interface Outgoing {
  readonly message: Message;
  readonly subject: string;
  readonly data: Uint8Array;
  readonly marker?: Marker;
}

/** The marker of a topic's removal. Its sequence is 0 until it is stored. */
interface Marker {
  readonly topic: string;
  sequence: number;
}

/** If others wrote within this time (milliseconds) before, they get their turn. */
const TURN_WINDOW = 100;
/** A turn is this many times as long as the last commit took, and at most MAX_TURN milliseconds. */
const TURN_SHARE = 1.5;
const MAX_TURN = 50;
/** One atomic batch of JetStream has at most 1,000 messages. */
const MAX_BATCH = 1_000;

/**
 * Makes the commits of one replica, one at a time. Each carries the condition that the stream's last sequence is the one that
 * this replica has applied, so nothing that it decided on is out of date.
 */
export class Commits implements SharedLog {
  readonly commitBytes = 2 * 2 ** 20;
  readonly maxRuns = MAX_BATCH;

  /** begin() waits until this sequence is applied. */
  private awaited = 0;
  /** True if the next commit adds a record of the epochs; with a new one, if `beginsEpoch`. */
  private writesEpochs = false;
  private beginsEpoch = false;
  /** The topics that the next commit marks as removed. */
  private readonly removals = new Set<Marker>();
  /** The last commit: when it ended and how long it took. */
  private committedAt = -Infinity;
  private commitTook = 0;
  /** No commit waits for NATS after this time (performance.now()). */
  private closeBy = Infinity;

  constructor(
    private readonly api: StreamApi,
    private readonly state: LogState,
    private readonly history: History,
    private readonly stored: StoredRuns,
    private readonly storedIds: StoredIds,
    private readonly options: CommitOptions,
  ) {}

  /** True until the record of the epochs that requestEpochs() asked for is stored. */
  get areEpochsDue(): boolean {
    return this.writesEpochs;
  }

  /** The next commit adds a record of all epochs, and of a new one if `begins`. */
  requestEpochs(begins: boolean): void {
    this.writesEpochs = true;
    this.beginsEpoch ||= begins;
  }

  /**
   * The next commit marks that all events of a topic until then were removed, which is true once all messages of the topic
   * before the marker are purged.
   */
  requestMarker(topic: string): Readonly<Marker> {
    const marker = { topic, sequence: 0 };
    this.removals.add(marker);
    return marker;
  }

  cancelMarker(marker: Readonly<Marker>): void {
    this.removals.delete(marker);
  }

  /** From now on, commits wait for NATS for so many milliseconds in all. */
  endWithin(milliseconds: number): void {
    this.closeBy = performance.now() + milliseconds;
  }

  nextRun(after: Position): Position {
    // The first run of a commit follows what is applied; others follow the run before.
    return firstOf(Math.max(sequenceOf(after), this.state.applied) + 1);
  }

  async begin(): Promise<{ head: Position; storedAt: number }> {
    await this.giveTurn();
    const { history, state } = this;
    const end = performance.now() + this.options.patience;
    for (;;) {
      history.refuseIfOver();
      if (history.isSuspicious) await history.compare();
      else if (state.applied < this.awaited)
        await Promise.race([state.until(this.awaited), sleep(RETRY_INTERVAL)]);
      else break;
      if (this.isTimeUp(end)) throw unavailable('the stream does not answer');
    }
    state.hold();
    this.storedIds.begin();
    return { head: state.newest, storedAt: state.storedAt };
  }

  settled(): void {
    this.storedIds.settled();
    this.state.release();
  }

  /**
   * Stores a commit: all of it or nothing.
   *
   * @throws OvertakenError, AppendError
   */
  async commit(commit: Commit): Promise<void> {
    try {
      if (this.storedIds.areMissing) {
        await this.storedIds.fetch();
        throw new OvertakenError();
      }
      if (this.beginsEpoch && commit.runs.length > 0) {
        // These events have cursors of an epoch of before this start.
        await this.store({ runs: [], ids: [] });
        throw new OvertakenError();
      }
      await this.store(commit);
    } catch (error) {
      throw error instanceof StoreUnavailableError ? this.unknownOutcome(error) : error;
    }
  }

  /** Waits for a commit of another replica, if others write at the same time. Else one would win every time. */
  private async giveTurn(): Promise<void> {
    const { othersAt, applied } = this.state;
    const now = performance.now();
    if (othersAt < now - TURN_WINDOW || othersAt > this.committedAt) return;
    const left = this.committedAt + Math.min(MAX_TURN, TURN_SHARE * this.commitTook) - now;
    if (left > 0) await Promise.race([this.state.until(applied + 1), sleep(left)]);
  }

  private async store({ runs, ids }: Commit): Promise<void> {
    const messages = await this.messagesOf(runs, ids);
    if (messages.length === 0) return;
    const startedAt = performance.now();
    const { report } = this.options;
    report.unacknowledgedSince = startedAt;
    try {
      await this.send(messages, this.state.applied);
    } finally {
      report.unacknowledgedSince = undefined;
    }
    for (const { message, marker } of messages) {
      this.state.takeOwn(message);
      if (marker) marker.sequence = message.sequence;
      if (message.kind === 'epochs') this.writesEpochs = this.beginsEpoch = false;
    }
    this.committedAt = performance.now();
    this.commitTook = this.committedAt - startedAt;
  }

  private async messagesOf(
    runs: readonly StoredRun[],
    ids: readonly Uint32Array[],
  ): Promise<Outgoing[]> {
    const { prefix, storesIds, isEpochsRecordOld } = this.options;
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
      allIds += countOf(runIds);
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
    for (const marker of markers) {
      const { last } = topics.get(marker.topic)!;
      add(markerOf(marker.topic, last, this.state.storedAt), NO_IDS, marker);
    }
    const bytes = bytesOf(runs) + MESSAGE_OVERHEAD * messages.length;
    if ((this.writesEpochs || isEpochsRecordOld(bytes)) && messages.length < MAX_BATCH) {
      const sequence = nextSequence();
      const { epochs, storedAt } = this.state;
      // It begins after all positions of the messages before, because floors are such positions, too (endOf()).
      const { starts } = this.beginsEpoch ? epochs.begun(endOf(sequence - 1)) : epochs;
      const record = { commit, storedAt, before, allIds };
      messages.push({
        message: { kind: 'epochs', sequence, starts, ...record },
        subject: this.epochsSubject,
        data: encodeEpochs(starts, record),
      });
    }
    return messages;
  }

  /** Returns the states of topics, as of `applied`. Asks the stream for those that this replica has not met. */
  private async statesOf(topics: ReadonlySet<string>): Promise<Map<string, TopicState>> {
    const states = new Map<string, TopicState>();
    await inParts([...topics], async (topic) => {
      states.set(topic, this.state.topics.get(topic) ?? (await this.learn(topic)));
    });
    return states;
  }

  private async learn(topic: string): Promise<TopicState> {
    const newest = await this.history.ask(() => this.stored.newest(topic));
    if (!newest) {
      // Nobody knows where the newest removed event was: anywhere before what the stream holds.
      const last = await this.history.ask(() => this.stored.floorOfStream());
      return { last, total: 0, totalBytes: 0 };
    }
    if (newest.sequence > this.state.applied) throw this.overtaken(newest.sequence);
    const { run, total, totalBytes } = newest;
    return { last: run.last, total, totalBytes };
  }

  private overtaken(sequence: number): OvertakenError {
    this.awaited = Math.max(this.awaited, sequence);
    return new OvertakenError();
  }

  /** Stores messages behind the sequence `base`. If the answer is lost, it finds out whether they are stored. */
  private async send(messages: readonly Outgoing[], base: number): Promise<void> {
    const { history } = this;
    const { patience, report } = this.options;
    const end = performance.now() + patience;
    for (let attempt = 0; ; attempt++) {
      history.refuseIfOver();
      if (attempt > 0) report.repeatedCommits++;
      const id = randomBytes(8).toString('hex');
      try {
        const sequence = await this.api.publish(messages, this.expected(base), id);
        if (sequence === base + messages.length) return;
        throw history.lose(`the commit behind ${base} was stored at ${sequence}`);
      } catch (error) {
        if (!(error instanceof RefusedError || error instanceof UnansweredError)) throw error;
        const isRefused = error instanceof RefusedError;
        // Whatever refuses this attempt, an earlier one may have been stored.
        if (isRefused && attempt > 0 && (await this.isStored(messages, base, end))) return;
        if (isRefused && OVERTAKEN.has(error.code)) {
          report.overtakenCommits++;
          throw await this.findOvertaking(base, end);
        }
        if (isRefused && FULL.has(error.code))
          throw new AppendError(
            'storage-full',
            `${error.message}: raise FEED_QUOTA_BYTES, or make room`,
          );
        if (isRefused && error.code === CODE.messageTooLarge)
          throw new AppendError('refused', error.message);
        // The same once more is the same commit: it is stored once, because of its condition.
        if (this.isTimeUp(end)) throw this.unknownOutcome(error);
        history.suspect();
        await this.connected(end);
        await history.compare();
      }
    }
  }

  /**
   * The stream's last sequence alone may be the expected one by chance: a stream that was restored from an older backup grows
   * again. But it does so by a record of the epochs of whoever starts on it, and that has another sequence.
   */
  private expected(last: number): ExpectedStream {
    const { epochsAt } = this.state;
    if (epochsAt === undefined) return { last };
    return { last, lastOf: { subject: this.epochsSubject, sequence: epochsAt } };
  }

  private get epochsSubject(): string {
    return this.options.prefix.slice(0, -1);
  }

  /** Returns true if work that may take until `end` is to give up. */
  private isTimeUp(end: number): boolean {
    return performance.now() > Math.min(end, this.closeBy);
  }

  private unknownOutcome(error: Error): AppendError {
    // If the commit was stored after all, the tail brings it.
    this.history.suspect();
    return unavailable(error.message);
  }

  /** Waits while there is no connection: what is sent then would only pile up. */
  private async connected(end: number): Promise<void> {
    do await sleep(RETRY_INTERVAL);
    while (!this.history.isOver && !this.isTimeUp(end) && !this.api.isConnected);
  }

  /** Returns true if the message behind `base` is the first of these: the answer to an earlier attempt was lost. */
  private async isStored(
    messages: readonly Outgoing[],
    base: number,
    end: number,
  ): Promise<boolean> {
    const own = messages[0].message.commit;
    const heldBack = this.state.heldBackAt(base + 1);
    if (heldBack && commitOf(heldBack).equals(own)) return true;
    const found = await this.history.ask(
      () => this.api.message({ seq: base + 1 }),
      end - performance.now(),
    );
    return found !== undefined && commitOf(found.data).equals(own);
  }

  private async findOvertaking(base: number, end: number): Promise<Error> {
    const { state } = await this.history.ask(() => this.api.info(), end - performance.now());
    if (state.last_seq > base) return this.overtaken(state.last_seq);
    if (state.last_seq === base) return this.compareEpochs(end);
    return this.history.lose(
      `the stream ends at ${state.last_seq}, and this replica had ${base} of it`,
    );
  }

  /** The stream is as long as expected, and yet the commit was refused. */
  private async compareEpochs(end: number): Promise<Error> {
    const found = await this.history.ask(
      () => this.api.message({ last_by_subj: this.epochsSubject }),
      end - performance.now(),
    );
    const { epochsAt } = this.state;
    // Where this replica does not know the record, its commit had no such condition.
    if (found && epochsAt !== undefined && found.sequence !== epochsAt)
      return this.history.lose(
        `its newest record of the epochs is message ${found.sequence}, and not ${epochsAt}`,
      );
    // Retention may have removed the record.
    if (!found) this.state.epochsAt = 0;
    return new OvertakenError();
  }
}

const OVERTAKEN: ReadonlySet<number> = new Set([
  CODE.wrongLastSequence,
  CODE.wrongLastSequenceOfBatch,
]);
const FULL: ReadonlySet<number> = new Set([CODE.maxBytes, CODE.storageExceeded]);
const NO_IDS = new Uint32Array(0);

function unavailable(why: string): AppendError {
  return new AppendError(
    'unavailable',
    `NATS did not answer in time (${why}): send the events after "received" again, with the same ids`,
  );
}

function countOf(ids: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i += 2) if (ids[i] !== 0 || ids[i + 1] !== 0) count++;
  return count;
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
