import { allowsColor, paintFor, type TerminalStream, widthOf } from './terminal.js';

/** The content of a progress line. */
export interface ProgressView {
  /** The part of the work that is done, 0 to 1, if the whole is known: it is drawn as a bar. */
  readonly fraction?: number;
  /** The text after the bar, such as `12,000 lines, 4,000/s`. */
  readonly text: string;
}

/** On a terminal, the line is drawn again at this interval, in milliseconds. */
const REDRAW_EVERY = 100;
/** Without a terminal, a line is written at this interval, in milliseconds. */
const SAY_EVERY = 5_000;
const BAR_COLUMNS = 24;

/**
 * Shows how far some work has come, on standard error: a line that is drawn again and again on a terminal, a plain line
 * every few seconds otherwise. While it runs, messages go through say(), so that the line stays whole.
 */
export class Progress {
  private timer: NodeJS.Timeout | undefined;
  private isDrawn = false;
  /** The line that was written last where there is no terminal: it is not repeated while nothing changes. */
  private written = '';

  /** @param view returns what the next line shows */
  constructor(
    private readonly view: () => ProgressView,
    private readonly stream: TerminalStream = process.stderr,
  ) {}

  /** Shows the line from now on. */
  start(): void {
    const interval = this.stream.isTTY ? REDRAW_EVERY : SAY_EVERY;
    this.timer ??= setInterval(() => this.show(), interval).unref();
  }

  /** Shows the line no longer, and removes it from a terminal. */
  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.clear();
  }

  /** Writes a line for people above the progress line. */
  say(text: string): void {
    this.clear();
    this.stream.write(`${text}\n`);
  }

  private show(): void {
    const { fraction, text } = this.view();
    const bar = fraction === undefined ? '' : `${this.bar(fraction)} ${percent(fraction)} `;
    if (!this.stream.isTTY) {
      const line = `${fraction === undefined ? '' : `${percent(fraction)}, `}${text}`;
      if (line !== this.written) this.stream.write(`${line}\n`);
      this.written = line;
      return;
    }
    // The last column stays free: a line that fills it would wrap, and could not be cleared.
    const columns = widthOf(this.stream) - 1;
    const barColumns = fraction === undefined ? 0 : BAR_COLUMNS + percent(fraction).length + 2;
    const line = barColumns + text.length <= columns ? bar + text : text.slice(0, columns);
    this.clear();
    this.stream.write(line);
    this.isDrawn = true;
  }

  private bar(fraction: number): string {
    const full = Math.round(Math.min(1, Math.max(0, fraction)) * BAR_COLUMNS);
    const paint = paintFor(this.stream);
    const [done, left] = allowsColor(this.stream) ? ['━', '━'] : ['#', '.'];
    return paint('green', done.repeat(full)) + paint('dim', left.repeat(BAR_COLUMNS - full));
  }

  private clear(): void {
    if (!this.isDrawn) return;
    this.stream.write('\r\u001b[K');
    this.isDrawn = false;
  }
}

function percent(fraction: number): string {
  return `${Math.floor(Math.min(1, Math.max(0, fraction)) * 100)}%`;
}

/** `1234567` as `1,234,567`, the same on every machine. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

/** Milliseconds as `0.8 s`, `12 s`, `3 min 5 s` or `2 h 10 min`. */
export function formatDuration(milliseconds: number): string {
  const seconds = milliseconds / 1_000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
}
