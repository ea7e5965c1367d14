import { signal } from '@preact/signals';
import { follow } from '../../api/follow.ts';
import { Problem } from '../../api/problem.ts';
import type { Start } from '../../api/watch.ts';
import { type Filter, toFilter } from '../events/filter.ts';
import { nextFrame, Pace } from '../events/pace.ts';
import { type Row, Rows } from '../events/rows.ts';

/**
 * - `connecting`: the watch has not begun, or has broken and is tried again
 * - `live`: events come as they are stored
 * - `paused`: the reader has paused it. There is no connection; the place in the log is kept
 * - `refused`: the server has said why it does not go on, in `problem`
 */
export type TailState = 'connecting' | 'live' | 'paused' | 'refused';

/** The part of a tail that is shown. */
export interface Shown {
  /** The oldest first. */
  readonly rows: readonly Row[];
  /** How many events came, and how many of them the filter lets through. */
  readonly came: number;
  readonly matched: number;
}

/** What a tail keeps: so many events, of so many characters. The rest is in the log. */
const MOST_ROWS = 2000;
const MOST_CHARACTERS = 8 * 2 ** 20;

/** A tail begins with so many of the newest events. */
export const NEWEST: Start = { last: 100 };

const newRows = (): Rows => new Rows(MOST_ROWS, MOST_CHARACTERS);

/** Follows a topic for the reader, and keeps the newest events. */
export class Tail {
  readonly state = signal<TailState>('connecting');
  readonly problem = signal<Problem | undefined>(undefined);
  /** It changes at most once for each drawing of the page. */
  readonly shown = signal<Shown>({ rows: [], came: 0, matched: 0 });

  private recent = newRows();
  /** The events that the filter lets through. They may be rare: among `recent`, they would soon be gone. */
  private matching: { readonly filter: Filter; readonly rows: Rows } | undefined;
  private position: Start = NEWEST;
  private connection = new AbortController();
  private isDrawing = false;

  constructor(private readonly topic: string) {
    this.connect();
  }

  pause(): void {
    this.connection.abort();
    this.state.value = 'paused';
  }

  /** Goes on where it was paused or refused. */
  resume(): void {
    this.close();
    this.connect();
  }

  /** Forgets what came, and begins anew. */
  restart(start: Start = NEWEST): void {
    this.recent = newRows();
    if (this.matching) this.matching = { ...this.matching, rows: newRows() };
    this.position = start;
    this.resume();
    this.draw();
  }

  /** Shows only events with this text, of those that are kept and of those that will come. */
  filter(text: string): void {
    const filter = toFilter(text);
    if (!filter) this.matching = undefined;
    else {
      const rows = newRows();
      rows.add(this.recent.all.filter(({ line }) => filter(line)));
      this.matching = { filter, rows };
    }
    this.draw();
  }

  close(): void {
    this.connection.abort();
  }

  private connect(): void {
    const connection = new AbortController();
    this.connection = connection;
    this.state.value = 'connecting';
    this.problem.value = undefined;
    const pace = new Pace();
    const live = (cursor: string): void => {
      this.state.value = 'live';
      this.moveTo(cursor);
    };
    const follower = {
      began: live,
      silent: live,
      broke: () => (this.state.value = 'connecting'),
      events: (lines: readonly string[], cursor: string) => {
        this.add(lines);
        this.moveTo(cursor);
        return pace.rest();
      },
    };
    follow(this.topic, this.position, follower, connection.signal).catch((error: unknown) => {
      if (connection.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.problem.value = error;
      this.state.value = 'refused';
    });
  }

  private moveTo(cursor: string): void {
    if (cursor !== '') this.position = { after: cursor };
  }

  private add(lines: readonly string[]): void {
    const { came } = this.recent;
    const rows = lines.map((line, index) => ({ number: came + index, line }));
    this.recent.add(rows);
    if (this.matching) {
      const { filter, rows: matching } = this.matching;
      matching.add(rows.filter(({ line }) => filter(line)));
    }
    this.draw();
  }

  /** Shows what came when the page is drawn next, however much comes until then. */
  private draw(): void {
    if (this.isDrawing) return;
    this.isDrawing = true;
    void nextFrame().then(() => {
      this.isDrawing = false;
      const matched = this.matching?.rows ?? this.recent;
      this.shown.value = {
        rows: matched.all.slice(),
        came: this.recent.came,
        matched: matched.came,
      };
    });
  }
}
