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
import { type History, RETRY_INTERVAL } from './history.js';
import { type CommitMessages, MAX_BATCH, type Outgoing } from './commit-messages.js';
import type { LogState } from './log-state.js';
import { commitOf, firstOf, sequenceOf } from './message.js';
import type { StoredIds } from './stored-ids.js';

export interface CommitOptions {
  readonly epochsSubject: string;
  /** How long (milliseconds) a commit waits for NATS. */
  readonly patience: number;
  readonly report: LogReport;
}

/** If others wrote within this time (milliseconds) before, they get their turn. */
const TURN_WINDOW = 100;
/** A turn is this many times as long as the last commit took, and at most MAX_TURN milliseconds. */
const TURN_SHARE = 1.5;
const MAX_TURN = 50;

/**
 * Makes the commits of one replica, one at a time. Each carries the condition that the stream's last sequence is the one that
 * this replica has applied, so nothing that it decided on is out of date.
 */
export class Commits implements SharedLog {
  readonly commitBytes = 2 * 2 ** 20;
  readonly maxRuns = MAX_BATCH;

  /** begin() waits until this sequence is applied. */
  private awaited = 0;
  /** begin() gives this sequence some time: a commit was refused for the sake of another one that was not stored yet. */
  private contended = 0;
  /** begin() gives up after this time (performance.now()). A commit that is built again because it was overtaken gets no more of it. */
  private end = 0;
  private isOvertaken = false;
  /** The last commit: when it ended and how long it took. */
  private committedAt = -Infinity;
  private commitTook = 0;
  /** No commit waits for NATS after this time (performance.now()). */
  private closeBy = Infinity;

  constructor(
    private readonly api: StreamApi,
    private readonly state: LogState,
    private readonly history: History,
    private readonly messages: CommitMessages,
    private readonly storedIds: StoredIds,
    private readonly options: CommitOptions,
  ) {}

  /** From now on, commits wait for NATS for this many milliseconds in all. */
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
    const isAgain = this.isOvertaken;
    this.isOvertaken = false;
    if (!isAgain) this.end = performance.now() + this.options.patience;
    else if (this.isTimeUp(this.end)) throw unavailable('others were first each time');
    const reach = (sequence: number) =>
      Promise.race([state.until(sequence), sleep(RETRY_INTERVAL)]);
    if (state.applied < this.contended) await reach(this.contended);
    for (;;) {
      history.refuseIfOver();
      if (history.isSuspicious) await history.compare();
      else if (state.applied < this.awaited) await reach(this.awaited);
      else break;
      if (this.isTimeUp(this.end)) throw unavailable('the stream does not answer');
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
      if (this.messages.beginsEpoch && commit.runs.length > 0) {
        await this.store({ runs: [], ids: [] });
        throw new OvertakenError();
      }
      await this.store(commit);
    } catch (error) {
      if (error instanceof OvertakenError) this.awaited = Math.max(this.awaited, error.sequence);
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
    const messages = await this.messages.build(runs, ids);
    if (messages.length === 0) return;
    const startedAt = performance.now();
    const { report } = this.options;
    report.unacknowledgedSince = startedAt;
    try {
      await this.send(messages, this.state.applied);
    } finally {
      report.unacknowledgedSince = undefined;
    }
    for (const { message } of messages) this.state.takeOwn(message);
    this.messages.onStored(messages);
    this.committedAt = performance.now();
    this.commitTook = this.committedAt - startedAt;
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
        const isOvertaken = isRefused && OVERTAKEN.has(error.code);
        // Asked first: an earlier attempt that is stored between the two questions is found by the second one.
        const overtaking = isOvertaken ? await this.findOvertaking(base, end) : undefined;
        // Whatever refuses this attempt, an earlier one may have been stored.
        if (isRefused && attempt > 0 && (await this.isStored(messages, base, overtaking, end)))
          return;
        // An earlier attempt may also be what the leader has not stored yet: built again, it would be another commit.
        if (overtaking && (attempt === 0 || !isUnclear(overtaking))) {
          report.overtakenCommits++;
          this.isOvertaken = true;
          throw overtaking;
        }
        // An earlier attempt may come late, and find room then.
        if (attempt === 0 && isRefused && FULL.has(error.code))
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
    return { last, lastOf: { subject: this.options.epochsSubject, sequence: epochsAt } };
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
    overtaking: Error | undefined,
    end: number,
  ): Promise<boolean> {
    const own = messages[0].message.commit;
    const heldBack = this.state.heldBackAt(base + 1);
    if (heldBack && commitOf(heldBack).equals(own)) return true;
    const behindBase = () => this.api.message({ seq: base + 1 });
    let found = await this.history.ask(behindBase, end - performance.now());
    // Another server may lead since, and lag: the leader before it had a message there.
    if (!found && overtaking instanceof OvertakenError && overtaking.sequence > base)
      found = await this.askAgain(behindBase, overtaking.sequence, end);
    return found !== undefined && commitOf(found.data).equals(own);
  }

  /** Asks the stream's leader once more, now that its answer is surprising, and believes it only if it has a sequence. */
  private askAgain<T>(question: () => Promise<T>, sequence: number, end: number): Promise<T> {
    const { history } = this;
    const ask = async (): Promise<T> => {
      await history.leaderHas(sequence);
      return question();
    };
    return history.ask(ask, end - performance.now());
  }

  private async findOvertaking(base: number, end: number): Promise<Error> {
    const { state } = await this.history.ask(() => this.api.info(), end - performance.now());
    if (state.last_seq > base) return new OvertakenError(state.last_seq);
    if (state.last_seq === base) return this.compareEpochs(base, end);
    // It is another stream, or its leader is behind another server: begin() finds out.
    this.history.suspect();
    return new OvertakenError();
  }

  /** The commit behind `base` was refused, and yet the stream ended there just now. */
  private async compareEpochs(base: number, end: number): Promise<Error> {
    const { epochsAt } = this.state;
    const newest = () => this.api.message({ last_by_subj: this.options.epochsSubject });
    let found = await this.history.ask(newest, end - performance.now());
    // Another server may lead since, and lag.
    if (!found || (epochsAt !== undefined && found.sequence < epochsAt))
      found = await this.askAgain(newest, base, end);
    // The server refuses for the sake of a commit that it has not stored yet: then that one brings a record.
    if (found && found.sequence > base) return new OvertakenError(found.sequence);
    // Where this replica does not know the record, its commit had no such condition.
    if (found && epochsAt !== undefined && found.sequence !== epochsAt)
      return this.history.lose(
        `its newest record of the epochs is message ${found.sequence}, and not ${epochsAt}`,
      );
    if (found) {
      this.contended = base + 1;
    } else {
      // Retention or an operator's purge has removed the record. The next start needs it, to know the cursors that are given out until then.
      this.state.epochsAt = 0;
      this.messages.requestEpochs(false);
    }
    return new OvertakenError();
  }
}

const OVERTAKEN: ReadonlySet<number> = new Set([
  CODE.wrongLastSequence,
  CODE.wrongLastSequenceOfBatch,
]);
const FULL: ReadonlySet<number> = new Set([CODE.maxBytes, CODE.storageExceeded]);

/** Returns true for what says that nothing is stored behind the commit's base yet. */
const isUnclear = (overtaking: Error): boolean =>
  overtaking instanceof OvertakenError && overtaking.sequence === 0;

/** Returns the error of appends of which nobody knows whether they are stored. */
export function unavailable(why: string): AppendError {
  return new AppendError(
    'unavailable',
    `NATS did not answer in time (${why}): send the events after "received" again, with the same ids`,
  );
}
