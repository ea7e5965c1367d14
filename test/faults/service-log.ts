import type { OpenCounts } from '../../src/feed/open-work.js';
import type { ServiceProcess } from '../support/service.js';

/** The log line of a call's end. */
export interface CallEnd {
  readonly time: string;
  readonly method: string;
  readonly peer: string;
  readonly status: string;
  readonly reason?: string;
  readonly events: number;
  readonly ms: number;
}

/** A log line with the counts of what is open. It comes when they have changed. */
interface OpenLine {
  readonly time: string;
  readonly counts: Partial<OpenCounts>;
}

type Line = Partial<CallEnd & OpenCounts> & { readonly msg?: string; readonly context?: string };

/** Reads the log of a service that logs at debug, as JSON. */
export class ServiceLog {
  private readonly openings: OpenLine[] = [];
  private readonly callEnds: CallEnd[] = [];
  private read = 0;
  private rest = '';

  constructor(private readonly service: Pick<ServiceProcess, 'output'>) {}

  /** The counts of what is open, as logged last. */
  get open(): Partial<OpenCounts> {
    return this.openLines.at(-1)?.counts ?? {};
  }

  /** All lines with counts of what is open, also of states that have passed. */
  get openLines(): readonly OpenLine[] {
    this.readOn();
    return this.openings;
  }

  /** The calls that have ended, in order. */
  get ends(): readonly CallEnd[] {
    this.readOn();
    return this.callEnds;
  }

  private readOn(): void {
    const { output } = this.service;
    const text = this.rest + output.slice(this.read).join('');
    this.read = output.length;
    const lines = text.split('\n');
    this.rest = lines.pop()!;
    for (const line of lines) if (line.startsWith('{')) this.take(JSON.parse(line) as Line);
  }

  private take({ msg, ...line }: Line): void {
    if (msg === 'call ended') this.callEnds.push(line as CallEnd);
    if (line.context !== 'open') return;
    const { time, watches, uploads, chats, subscriptions, members } = line;
    this.openings.push({
      time: time!,
      counts: { watches, uploads, chats, subscriptions, members },
    });
  }
}
