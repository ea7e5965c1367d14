import { stat } from 'node:fs/promises';
import { formatCount, formatDuration, Progress, type ProgressView } from './progress.js';

/** The rate and the time left are those of the last so many milliseconds. */
const RATE_OVER = 5_000;

/** Says on standard error how far an upload has come, and sums it up at its end. */
export class UploadReport {
  /** Lines that were read. */
  taken = 0;
  duplicates = 0;
  lastCursor = '';
  private stored = 0;
  private bytes = 0;
  /** The size of all files, if it is known and stays. */
  private totalBytes: number | undefined;
  private startedAt = 0;
  private samples: { readonly at: number; readonly stored: number; readonly bytes: number }[] = [];
  private readonly progress = new Progress(() => this.view());

  constructor(
    private readonly topic: string,
    private readonly names: readonly string[],
  ) {}

  /** @param isWhole false for a file that grows while it is uploaded */
  async start(isWhole: boolean): Promise<void> {
    this.startedAt = performance.now();
    if (isWhole) this.totalBytes = await sizeOf(this.names);
    this.progress.start();
  }

  say(text: string): void {
    this.progress.say(text);
  }

  pause(): void {
    this.progress.stop();
  }

  resume(): void {
    this.progress.start();
  }

  /** Notes that the first bytes of a file were acknowledged by an earlier run. */
  skipped(bytes: number): void {
    if (this.totalBytes !== undefined) this.totalBytes -= bytes;
  }

  acknowledged(lines: number, bytes: number): void {
    this.stored += lines;
    this.bytes += bytes;
    const at = performance.now();
    this.samples.push({ at, stored: this.stored, bytes: this.bytes });
    while (this.samples.length > 2 && this.samples[0].at < at - RATE_OVER) this.samples.shift();
  }

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
    const first = this.samples.at(0);
    const last = this.samples.at(-1);
    const time = first && last && last.at - first.at;
    const text = [
      formatLines(taken),
      `${formatCount(stored)} acknowledged`,
      ...(time ? [`${formatCount(((last.stored - first.stored) / time) * 1_000)}/s`] : []),
    ];
    if (totalBytes === undefined || totalBytes <= 0) return { text: text.join(', ') };
    if (time && last.bytes > first.bytes) {
      const left = ((totalBytes - this.bytes) / (last.bytes - first.bytes)) * time;
      text.push(`${formatDuration(left)} left`);
    }
    return { fraction: this.bytes / totalBytes, text: text.join(', ') };
  }
}

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
