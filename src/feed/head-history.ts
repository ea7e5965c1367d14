import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { EventRepository } from '../repository/event-repository.js';
import type { Position } from '../wire/cursor.js';

/** The head is noted this often (milliseconds), and this many notes are kept. */
const INTERVAL = 1_000;
const MOST = 32;

/** Knows where the log's head was some seconds ago: a watch that has not got so far is behind. */
@Injectable()
export class HeadHistory implements OnApplicationShutdown {
  private heads: Position[] = [];
  private history: number;
  private readonly timer = setInterval(() => this.note(), INTERVAL).unref();

  constructor(private readonly repository: EventRepository) {
    this.history = repository.history;
  }

  /** Returns where the head was at least `seconds` (0 to 31) ago; 0 if that is not known yet. */
  before(seconds: number): Position {
    // The newest note may be one interval old.
    return this.repository.history === this.history ? (this.heads.at(-1 - seconds) ?? 0) : 0;
  }

  onApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  private note(): void {
    const { head, history } = this.repository;
    if (history !== this.history) {
      // Positions of before mean nothing in this one.
      this.heads = [];
      this.history = history;
    }
    this.heads.push(head);
    if (this.heads.length > MOST) this.heads.shift();
  }
}
