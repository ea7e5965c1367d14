import { Histogram, LATENCY_BOUNDS, SIZE_BOUNDS } from '../telemetry/histogram.js';
import type { Notices } from '../telemetry/notices.js';
import { bytesOf, type StoredRun } from './stored-run.js';

/** Why events could not be stored; AppendError says what each means. */
export type FailureReason = 'refused' | 'storage-full' | 'unavailable';

/** There is room again once every commit had some for so long (milliseconds): near the quota, large uploads are refused and small ones stored by turns. */
const ROOM_AFTER = 10_000;

const SILENT: Pick<Notices, 'info' | 'error'> = { info: () => {}, error: () => {} };

/**
 * What a log reports of its work: numbers that metrics read, and lines for the operator when uploads are refused because
 * there is no room, and when they are accepted again. It counts once for each append or commit, never for each event.
 */
export class LogReport {
  /** How long each append took, from when it came to the log until it was durable and its watches were woken. */
  readonly appendSeconds = new Histogram(LATENCY_BOUNDS);
  /** How long each commit took, and how many bytes of events it stored. */
  readonly commitSeconds = new Histogram(LATENCY_BOUNDS);
  readonly commitBytes = new Histogram(SIZE_BOUNDS);
  /** Commits that failed, by why. */
  readonly failedCommits: Record<FailureReason, number> = {
    refused: 0,
    'storage-full': 0,
    unavailable: 0,
  };
  /** Commits that NATS refused because another replica had stored something first, and that were built again. */
  overtakenCommits = 0;
  /** Commits that were sent to NATS once more, because no answer came. */
  repeatedCommits = 0;
  /** Since when (performance.now()) a commit waits for its acknowledgement by NATS; undefined while none does. */
  unacknowledgedSince: number | undefined;
  /** When the oldest append of the newest commit came to the log (performance.now()); NaN if another process stored it. */
  newestCameAt = NaN;

  private isFull = false;
  /** When a commit had no room for all that came last (performance.now()). */
  private lastFullAt = -Infinity;

  constructor(private readonly notices = SILENT) {}

  committed(milliseconds: number, runs: readonly StoredRun[]): void {
    this.commitSeconds.observe(milliseconds / 1000);
    if (runs.length > 0) this.commitBytes.observe(bytesOf(runs));
  }

  /** Call it after a commit that had room for all that came. */
  hasRoom(): void {
    if (!this.isFull || performance.now() - this.lastFullAt < ROOM_AFTER) return;
    this.isFull = false;
    this.notices.info('there is room again: events are stored');
  }

  failed(reason: FailureReason, message: string): void {
    this.failedCommits[reason]++;
    if (reason !== 'storage-full') return;
    this.lastFullAt = performance.now();
    if (this.isFull) return;
    this.isFull = true;
    this.notices.error(`uploads are refused until there is room: ${message}`);
  }
}
