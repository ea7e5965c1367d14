import type { Position } from '../../wire/cursor.js';
import { Epochs } from '../epochs.js';
import { type DedupWindow, StoreUnavailableError } from '../event-repository.js';
import type { LogClock } from '../log-clock.js';
import { RecentIds } from '../recent-ids.js';
import type { StoredRun } from '../stored-run.js';
import { Tail } from '../tail.js';
import { commitOf, decode, endOf, firstOf, headAfter, isEnd, type Message } from './message.js';
import { TopicStates } from './topic-states.js';

/** Where a replica begins to follow the stream, and what it knows then. */
export interface ReplicaStart {
  /** The stream's creation time, which tells it from a stream of the same name that was made later. */
  readonly created: string;
  /** The beginning of each topic's subject. */
  readonly prefix: string;
  /** The subject of the records of epochs. */
  readonly epochsSubject: string;
  /** The first message that deduplication and the tail need. */
  readonly from: number;
  /** The stream's last sequence. The replica is ready when it has applied it. */
  readonly last: number;
  /** The log before the message at `from`. */
  readonly before: {
    readonly head: Position;
    readonly storedAt: number;
    readonly allIds: number;
    readonly commit: Buffer | undefined;
  };
  readonly epochs: Epochs;
  /** The sequence of the newest record of the epochs; 0 if there is none. */
  readonly epochsAt: number;
  /** EpochsMessage.lag of that record; 0 if there is none. */
  readonly lag: number;
  /** How many subjects have messages. */
  readonly subjects: number;
}

export interface LogStateOptions {
  readonly dedup: DedupWindow;
  readonly clock: LogClock;
  /** Called with the topics of each run that can be read now. */
  readonly onDurable: (topics: Iterable<string>) => void;
  /** Called before a run of another replica can be read. */
  readonly onOthers: () => void;
  /** Called if a message contradicts those before: the stream is not the one that was followed until now. */
  readonly onContradiction: (why: string) => void;
}

/** A message of the stream as it came in. */
interface Received {
  readonly sequence: number;
  readonly subject: string;
  readonly data: Buffer;
}

/** A message and its commit; undefined if that is not known. */
interface Followed {
  readonly sequence: number;
  readonly commit: Buffer | undefined;
}

interface Waiter {
  readonly sequence: number;
  readonly resolve: () => void;
}

const TAIL_BYTES = 32 * 2 ** 20;
/** About what the server counts of a message beside its events: the head, the subject, ids and headers. */
export const MESSAGE_OVERHEAD = 300;

/**
 * What a replica knows of the log, as of the last message of the stream that it has applied. From hold() to release(),
 * messages are held back, because the outcome of the replica's own commit comes first.
 */
export class LogState {
  /** The sequence of the last message that is applied. */
  applied: number;
  /** The log's newest event, as of `applied`. */
  newest: Position;
  /** The newest event that can be read. During a commit of this replica, it is behind `newest`. */
  head: Position;
  storedAt: number;
  /** How many events with an id the log had until now. */
  allIds: number;
  /** The commit of the message at `applied`; undefined if that message was not held any more at the start. */
  lastCommit: Buffer | undefined;
  epochs: Epochs;
  /** The sequence of the newest record of the epochs: 0 if there is none, undefined if it is not known. */
  epochsAt: number | undefined;
  /** EpochsMessage.lag of the newest record. */
  lag: number;
  /** When others wrote last (performance.now()). */
  othersAt = -Infinity;
  /** When the newest record of the epochs was applied, and how much was stored since. */
  epochsWrittenAt = performance.now();
  bytesSinceEpochs = 0;
  readonly topics = new TopicStates();
  /** The stream has at most this many topics. It may have fewer, because nobody tells of those that retention has emptied. */
  mostTopics: number;
  readonly tail: Tail;
  readonly recent: RecentIds;

  private readonly prefix: string;
  /** The last message that the tail brought. */
  private followed: Followed;
  /** The first message of each own commit that the tail has not brought yet. */
  private own: Followed[] = [];
  private heldBack: Received[] | undefined;
  private waiters: Waiter[] = [];
  private isEnded = false;

  constructor(
    { before, from, epochs, epochsAt, lag, prefix, subjects }: ReplicaStart,
    private readonly options: LogStateOptions,
  ) {
    this.prefix = prefix;
    this.epochs = epochs;
    this.epochsAt = epochsAt;
    this.lag = lag;
    this.mostTopics = subjects;
    this.head = this.newest = before.head;
    this.storedAt = before.storedAt;
    this.allIds = before.allIds;
    this.lastCommit = before.commit;
    this.applied = from - 1;
    this.followed = { sequence: this.applied, commit: before.commit };
    this.tail = new Tail(endOf(this.applied), TAIL_BYTES);
    this.recent = new RecentIds(options.dedup);
  }

  /**
   * The message that the tail is to begin with: the last one that it brought. So it also brings what this replica has, and that
   * shows whether its stream is still the same. To compare before the tail begins is not enough: the stream may be restored
   * between the two.
   */
  get tailStart(): number {
    return Math.max(1, this.followed.sequence);
  }

  /** Takes a message of the stream that another replica may have written. */
  onMessage(sequence: number, subject: string, data: Buffer): void {
    if (this.heldBack) this.heldBack.push({ sequence, subject, data });
    else this.apply({ sequence, subject, data });
  }

  /** Nothing up to a sequence will come any more. What this replica has not got was removed. */
  onIdle(sequence: number): void {
    if (this.heldBack || sequence <= this.applied) return;
    this.topics.clear();
    this.mostTopics = Infinity;
    this.tail.forget(endOf(sequence));
    this.lastCommit = this.epochsAt = undefined;
    this.followed = { sequence, commit: undefined };
    this.own = [];
    this.head = this.newest = endOf(sequence);
    this.reach(sequence);
  }

  hold(): void {
    this.heldBack = [];
  }

  release(): void {
    const { heldBack = [] } = this;
    this.heldBack = undefined;
    for (const message of heldBack) this.apply(message);
  }

  /** Returns the data of a message that is held back. */
  heldBackAt(sequence: number): Buffer | undefined {
    return this.heldBack?.find((message) => message.sequence === sequence)?.data;
  }

  /** Takes a message that this replica has stored itself. show() follows once its whole commit is taken. */
  takeOwn(message: Message): void {
    const { sequence, commit } = message;
    if (this.own.at(-1)?.commit !== commit) this.own.push({ sequence, commit });
    this.take(message);
  }

  private take(message: Message): void {
    this.lastCommit = message.commit;
    this.storedAt = Math.max(this.storedAt, message.storedAt);
    this.allIds = message.allIds;
    if (message.kind === 'epochs') {
      this.epochs = new Epochs(message.starts);
      this.epochsAt = message.sequence;
      this.lag = message.lag;
      this.epochsWrittenAt = performance.now();
      this.bytesSinceEpochs = 0;
    } else {
      const { run, total, totalBytes } = message;
      if (total === run.count) this.mostTopics++;
      this.topics.set(run.topic, { last: run.last, total, totalBytes });
      // The marker of a removal. Reads of what the tail still has go to the stream, which loses it now.
      if (run.count === 0) this.tail.forget(run.last);
      this.bytesSinceEpochs += run.bytes.length + MESSAGE_OVERHEAD;
    }
    this.newest = headAfter(message);
    this.reach(message.sequence);
  }

  /** Adds runs to the tail and wakes their watches. */
  show(runs: readonly StoredRun[]): void {
    for (const run of runs) this.tail.add(run);
    // Only now: a watch that reads up to the head must find these events.
    this.head = runs[runs.length - 1].last;
    this.options.onDurable(new Set(runs.map(({ topic }) => topic)));
  }

  /**
   * Resolves once a message is applied, or nothing more will be.
   *
   * @param patience how long (milliseconds) to wait
   * @throws StoreUnavailableError after that
   */
  async until(sequence: number, patience = Infinity): Promise<void> {
    if (sequence <= this.applied || this.isEnded) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { sequence, resolve };
    this.waiters.push(waiter);
    const late = (): void => {
      this.waiters = this.waiters.filter((other) => other !== waiter);
      const why = `NATS delivers nothing of the stream after message ${this.applied}, and it has ${sequence}`;
      reject(new StoreUnavailableError(why));
    };
    const timer = patience === Infinity ? undefined : setTimeout(late, patience);
    await promise.finally(() => clearTimeout(timer));
  }

  /** Nothing more is applied. */
  end(): void {
    this.isEnded = true;
    for (const { resolve } of this.waiters) resolve();
    this.waiters = [];
  }

  private apply({ sequence, subject, data }: Received): void {
    if (this.isEnded) return;
    if (sequence <= this.applied) return this.compare(sequence, commitOf(data));
    try {
      const message = decode(sequence, subject.slice(this.prefix.length), data);
      this.checkGap(sequence);
      if (message.kind === 'run') this.checkOrder(message.run.topic, message.previous, sequence);
      this.take(message);
      this.options.clock.follow(message.storedAt, this.lag);
      this.followed = { sequence, commit: message.commit };
      this.own = [];
      if (message.kind === 'run') {
        const { run, ids } = message;
        for (let i = 0; i < ids.length; i += 2) {
          if (ids[i] !== 0 || ids[i + 1] !== 0)
            this.recent.add(ids[i], ids[i + 1], run.first + i / 2, run.storedAt);
        }
        if (run.count > 0) {
          this.options.onOthers();
          this.show([run]);
        }
      }
      this.othersAt = performance.now();
    } catch (error) {
      this.options.onContradiction((error as Error).message);
    }
  }

  /**
   * Compares a message that the tail brings with the one that this replica has, by their commits. Say the tail brought message 7
   * last, and this replica has stored a commit of 8 and 9 and one of 10 since. Then 9 must be of the commit of 8. Message 7
   * itself comes again when the tail begins anew.
   */
  private compare(sequence: number, commit: Buffer): void {
    const { own, followed } = this;
    if (sequence < followed.sequence) return;
    while (own.length > 1 && own[1].sequence <= sequence) own.shift();
    const first = own.length > 0 && own[0].sequence <= sequence ? own[0] : followed;
    const isKnown = first !== followed || sequence === followed.sequence;
    if (isKnown && first.commit && !first.commit.equals(commit))
      return this.options.onContradiction(`message ${sequence} is another one`);
    this.followed = { sequence, commit };
  }

  /** Notes that all up to a sequence is applied. */
  private reach(sequence: number): void {
    this.applied = sequence;
    const { waiters } = this;
    if (waiters.length === 0) return;
    this.waiters = waiters.filter((waiter) => waiter.sequence > sequence);
    for (const waiter of waiters) if (waiter.sequence <= sequence) waiter.resolve();
  }

  /**
   * A gap in the sequences means that messages were removed before they came here. Then nothing is known any more of the
   * topics, and reads of what was before go to the stream.
   */
  private checkGap(sequence: number): void {
    if (sequence === this.applied + 1) return;
    this.topics.clear();
    this.mostTopics = Infinity;
    this.epochsAt = undefined;
    this.tail.forget(firstOf(sequence) - 1);
  }

  /** Throws if a run does not follow the one that this replica had before: one of them is lost, or was never stored. */
  private checkOrder(topic: string, previous: Position, sequence: number): void {
    const known = this.topics.get(topic);
    if (!known || known.last === previous || (isEnd(previous) && previous > known.last)) return;
    throw new Error(
      `message ${sequence} of ${topic} follows position ${previous}, but the topic had ${known.last} before`,
    );
  }
}
