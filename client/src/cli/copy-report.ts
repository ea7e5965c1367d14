import { formatCount, formatDuration, Progress, type ProgressView } from './progress.js';
import { RecentRate } from './recent-rate.js';

/** Says on standard error how far a copy has come, and sums it up at its end. */
export class CopyReport {
  /** The number of events that were read. An event that is read again counts once. */
  taken = 0;
  /** The number of events that the copy had already. */
  duplicates = 0;
  /** How often events had been removed before they were read. */
  gaps = 0;
  private stored = 0;
  private startedAt = 0;
  private readonly rate = new RecentRate();
  private readonly progress = new Progress(() => this.view());

  start(): void {
    this.startedAt = performance.now();
    this.progress.start();
  }

  /** Writes a message for people above the progress line. */
  say(text: string): void {
    this.progress.say(text);
  }

  /** Notes that the next events are stored. */
  acknowledged(events: number): void {
    this.stored += events;
    this.rate.note(this.stored);
  }

  /** Counts the events that are not copied as not read: they are read again, or skipped. */
  forgetUnstored(): void {
    this.taken = this.stored;
  }

  /** Writes the summary. `how` begins it, such as `interrupted: `. */
  finish(how: string): void {
    this.progress.stop();
    const { stored, taken, duplicates, gaps } = this;
    const elapsed = performance.now() - this.startedAt;
    const parts = [
      `${how}${formatEvents(stored - duplicates)} copied`,
      ...(taken > stored ? [`${formatCount(taken - stored)} more read`] : []),
      ...(duplicates > 0
        ? [`${formatCount(duplicates)} more ${duplicates === 1 ? 'was' : 'were'} there before`]
        : []),
      ...(gaps > 0 ? [`${formatCount(gaps)} ${gaps === 1 ? 'gap' : 'gaps'}`] : []),
      formatDuration(elapsed),
      ...(stored > 0 ? [`${formatCount((stored / elapsed) * 1_000)}/s`] : []),
    ];
    this.progress.say(parts.join('; '));
  }

  private view(): ProgressView {
    const { perSecond } = this.rate;
    const text = [
      `${formatEvents(this.taken)} read`,
      `${formatCount(this.stored)} copied`,
      ...(perSecond === undefined ? [] : [`${formatCount(perSecond)}/s`]),
    ];
    return { text: text.join(', ') };
  }
}

export function formatEvents(count: number): string {
  return `${formatCount(count)} ${count === 1 ? 'event' : 'events'}`;
}
