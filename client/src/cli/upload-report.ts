import { stat } from 'node:fs/promises';
import { formatCount, formatDuration, Progress, type ProgressView } from './progress.js';
import { RecentRate } from './recent-rate.js';

/** Says on standard error how far an upload has come, and sums it up at its end. */
export class UploadReport {
  /** The number of lines that were read and are events. A line that is read again counts once. */
  taken = 0;
  /** The number of lines that the log had already. */
  duplicates = 0;
  /** The cursor of the last line; empty until there is one. */
  lastCursor = '';
  /** The number of lines that are acknowledged, and their size in the files. */
  private stored = 0;
  private bytes = 0;
  /** The size of all files without what earlier runs uploaded; undefined if it is not known, or a file grows. */
  private totalBytes: number | undefined;
  private startedAt = 0;
  private readonly lineRate = new RecentRate();
  private readonly byteRate = new RecentRate();
  private readonly progress = new Progress(() => this.view());

  constructor(
    private readonly topic: string,
    private readonly names: readonly string[],
  ) {}

  /** @param hasEnd false for a file that is followed, and so may grow */
  async start(hasEnd: boolean): Promise<void> {
    this.startedAt = performance.now();
    if (hasEnd) this.totalBytes = await sizeOf(this.names);
    this.progress.start();
  }

  /** Writes a message for people above the progress line. */
  say(text: string): void {
    this.progress.say(text);
  }

  /** Removes the progress line, so that a person can type. */
  pause(): void {
    this.progress.stop();
  }

  resume(): void {
    this.progress.start();
  }

  /** Notes that an earlier run uploaded the first bytes of a file. */
  skipped(bytes: number): void {
    if (this.totalBytes !== undefined) this.totalBytes -= bytes;
  }

  /** Notes that the next lines, of this size in their file, are stored. */
  acknowledged(lines: number, bytes: number): void {
    this.stored += lines;
    this.bytes += bytes;
    this.lineRate.note(this.stored);
    this.byteRate.note(this.bytes);
  }

  /** Counts the lines that are not stored as not read: they are read again, or skipped. */
  forgetUnstored(): void {
    this.taken = this.stored;
  }

  /** Writes the summary, unless the upload failed before its first line. */
  finish(isInterrupted: boolean, hasFailed: boolean): void {
    this.progress.stop();
    if (hasFailed && this.taken === 0) return;
    const elapsed = performance.now() - this.startedAt;
    const { stored, taken, duplicates, topic } = this;
    const parts = [
      `${isInterrupted ? 'interrupted: ' : ''}${formatLines(stored)} stored in ${topic}`,
      ...(taken > stored ? [`${formatCount(taken - stored)} more read`] : []),
      ...(duplicates > 0 ? [`${formatCount(duplicates)} of them were there before`] : []),
      formatDuration(elapsed),
      ...(stored > 0 ? [`${formatCount((stored / elapsed) * 1_000)}/s`] : []),
      ...(this.lastCursor === '' ? [] : [`last cursor ${this.lastCursor}`]),
    ];
    this.progress.say(parts.join('; '));
  }

  private view(): ProgressView {
    const { taken, stored, totalBytes } = this;
    const linesPerSecond = this.lineRate.perSecond;
    const bytesPerSecond = this.byteRate.perSecond;
    const text = [
      formatLines(taken),
      `${formatCount(stored)} acknowledged`,
      ...(linesPerSecond === undefined ? [] : [`${formatCount(linesPerSecond)}/s`]),
    ];
    if (totalBytes === undefined || totalBytes <= 0) return { text: text.join(', ') };
    if (bytesPerSecond) {
      const left = ((totalBytes - this.bytes) / bytesPerSecond) * 1_000;
      text.push(`${formatDuration(left)} left`);
    }
    return { fraction: this.bytes / totalBytes, text: text.join(', ') };
  }
}

/** Returns the size of all files; undefined if one of them is no regular file, or can't be looked at. */
async function sizeOf(names: readonly string[]): Promise<number | undefined> {
  let size = 0;
  for (const name of names) {
    const found = name === '-' ? undefined : await stat(name).catch(() => undefined);
    if (!found?.isFile()) return undefined;
    size += found.size;
  }
  return size;
}

function formatLines(count: number): string {
  return `${formatCount(count)} ${count === 1 ? 'line' : 'lines'}`;
}
