import { setTimeout as sleep } from 'node:timers/promises';
import {
  CODE,
  LEADER_LAG,
  RefusedError,
  type StreamApi,
  type StreamInfo,
  UnansweredError,
} from '../../nats/stream-api.js';
import { AppendError, StoreUnavailableError } from '../event-repository.js';
import type { LogState } from './log-state.js';
import { commitOf } from './message.js';

export interface HistoryOptions {
  /** The stream's creation time. */
  readonly created: string;
  /** How long (milliseconds) ask() waits for NATS. */
  readonly patience: number;
  /** Called once, when the stream seems to have another history. */
  readonly onLost: (why: string) => void;
}

/** How long to wait (milliseconds) before the servers are asked again. */
export const RETRY_INTERVAL = 100;

/**
 * The stream's history, as this replica followed it until now. When something unexpected happens (a reconnect, silence, a
 * refusal), it is suspicious: before the next commit, the message at `applied` is compared with the one that was
 * applied. If the stream has another one, or none for long, this history is lost.
 */
export class History {
  isSuspicious = false;
  /** True once nothing more is asked: the replica has ended, or the history is lost. */
  isOver = false;
  /**
   * True if the history is lost because the stream ended before what this replica has, and went on saying so. A single server whose
   * disk is full says that too, of its last message, until it is restarted.
   */
  isCutShort = false;
  private hasGivenUp = false;
  private lostBecause: string | undefined;
  /** A sequence that this replica has, and since when (performance.now()) each answer says that the stream ends before it. */
  private short: { readonly sequence: number; readonly since: number } | undefined;
  private comparing: Promise<void> | undefined;

  constructor(
    private readonly api: StreamApi,
    private readonly state: LogState,
    private readonly options: HistoryOptions,
  ) {}

  /** Call it when the connection was interrupted: the stream may be another one than before. */
  suspect(): void {
    this.isSuspicious = true;
  }

  end(): void {
    this.isOver = true;
  }

  /** From now on, ask() asks once, unless it is to ask for ever. */
  giveUp(): void {
    this.hasGivenUp = true;
  }

  /** Throws an AppendError if no commit can be made any more. */
  refuseIfOver(): void {
    if (this.lostBecause !== undefined) throw new AppendError('unavailable', this.lostBecause);
    if (this.isOver) throw new AppendError('refused', 'the log is closed');
  }

  /** Ends this history's work for good. Returns the error for those who wait for it. */
  lose(why: string): AppendError {
    const message = `the stream seems to be another one than this replica followed: ${why}`;
    if (this.lostBecause === undefined) {
      this.lostBecause = message;
      this.isOver = true;
      this.options.onLost(message);
    }
    return new AppendError('unavailable', message);
  }

  /** Compares the stream with what this replica has applied of it. */
  compare(): Promise<void> {
    this.comparing ??= this.compareOnce().finally(() => (this.comparing = undefined));
    return this.comparing;
  }

  /** Compares until there is nothing suspicious, or the history is over. */
  async compareUntilSure(): Promise<void> {
    while (this.isSuspicious && !this.isOver) await this.compare();
  }

  /** Asks until there is an answer, or throws once `patience` milliseconds are over. */
  async ask<T>(question: () => Promise<T>, patience = this.options.patience): Promise<T> {
    const end = performance.now() + patience;
    for (;;) {
      try {
        return await question();
      } catch (error) {
        if (error instanceof RefusedError && error.code === CODE.streamNotFound)
          this.lose('the stream was deleted');
        else if (!(error instanceof UnansweredError || error instanceof RefusedError)) throw error;
        const isLate = performance.now() >= end || (this.hasGivenUp && patience < Infinity);
        if (this.isOver || isLate)
          throw new StoreUnavailableError(`NATS does not answer: ${error.message}`);
        await sleep(RETRY_INTERVAL);
      }
    }
  }

  /**
   * Asks the stream's leader for one thing. That there is none is believed only of a leader that has all that this replica had when
   * it was asked: the leader may be behind.
   *
   * @throws RefusedError, UnansweredError
   */
  async fromLeader<T>(question: () => Promise<T | undefined>): Promise<T | undefined> {
    const { applied } = this.state;
    const found = await question();
    if (found !== undefined) return found;
    await this.leaderHas(applied);
    return question();
  }

  /**
   * Returns the stream's state as of a leader that has a sequence that this replica has, or that another leader has had.
   *
   * @throws UnansweredError if it does not have it yet, so ask() repeats the question; RefusedError
   */
  async leaderHas(sequence: number): Promise<StreamInfo> {
    const info = await this.api.info();
    const { last_seq: end } = info.state;
    this.noteEnd(end);
    if (end >= sequence) return info;
    await this.onShort(end, sequence);
    throw new UnansweredError(`its leader ends at ${end}, and this replica has ${sequence}`);
  }

  /** Call it with a sequence that the leader has: it may lag again later, about the same message. */
  private noteEnd(end: number): void {
    if (this.short && end >= this.short.sequence) this.short = undefined;
  }

  private async onShort(end: number, applied: number): Promise<void> {
    const now = performance.now();
    this.short ??= { sequence: applied, since: now };
    if (now - this.short.since >= LEADER_LAG) {
      this.isCutShort ||= !this.isOver;
      this.lose(`the stream ends at ${end}, and this replica had ${applied} of it`);
      return;
    }
    this.isSuspicious = true;
    await sleep(RETRY_INTERVAL);
  }

  private async compareOnce(): Promise<void> {
    const { applied, lastCommit } = this.state;
    this.isSuspicious = false;
    try {
      const found = applied > 0 ? await this.api.message({ seq: applied }) : undefined;
      if (found && lastCommit) {
        if (!commitOf(found.data).equals(lastCommit))
          this.lose(`message ${applied} is another one`);
        this.noteEnd(applied);
        return;
      }
      const { created, state } = await this.api.info();
      this.noteEnd(state.last_seq);
      if (created !== this.options.created) this.lose('the stream was made anew');
      else if (state.last_seq < applied) await this.onShort(state.last_seq, applied);
    } catch (error) {
      this.isSuspicious = true;
      if (error instanceof RefusedError && error.code === CODE.streamNotFound)
        this.lose('the stream was deleted');
      else if (error instanceof UnansweredError || error instanceof RefusedError)
        await sleep(RETRY_INTERVAL);
      else throw error;
    }
  }
}
