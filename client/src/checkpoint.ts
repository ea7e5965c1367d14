import { readFile } from 'node:fs/promises';
import { LONGEST_TIMER } from './clock.js';
import { replaceFile } from './replace-file.js';

/** Where a watch goes on: its `cursor`, and its `earliest` if it has one (Watch.earliest). */
export interface Saved {
  readonly cursor: string;
  readonly earliest?: string | undefined;
}

/** Keeps the cursor of a watch across runs of the process. */
export interface Checkpoint {
  /** Returns what was saved last, or undefined if nothing was. A text is a cursor. A watch that ends meanwhile does not wait for it. */
  load(): Promise<string | Saved | undefined>;
  /**
   * Resolves when the cursor is safe. The watch makes one save at a time, and its end waits for the last one, for however long that
   * takes.
   *
   * @param earliest there is one only while a watch of several topics reads what is older than Watch.earliest. Without it, a watch
   * that goes on there may end with a CursorExpiredError though nothing was removed since
   */
  save(cursor: string, earliest?: string): Promise<void>;
}

/** How often a checkpoint is saved while events come. It is also saved when the watch begins at a cursor, and when it ends. */
export interface CheckpointInterval {
  /** After this many events; 100 by default. */
  readonly events?: number;
  /** And this many milliseconds after the first event since the last save; 1,000 by default. */
  readonly time?: number;
}

/** One cursor or two, each in a line. Cursors are printable and short (docs/protocol.md, "Names"). */
const CONTENT = /^([\x21-\x7e]{1,40})(?:\n([\x21-\x7e]{1,40}))?$/;

/**
 * A checkpoint in a file of its own, in which the first line is the cursor. Its directory must exist. A crash leaves the old cursor
 * or the new one. A file that holds something else is refused, and not written over. load() and save() reject with node's error if it can't be read or replaced.
 */
export function fileCheckpoint(path: string): Checkpoint {
  return {
    async load() {
      const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return '';
        throw error;
      });
      if (text.trim() === '') return undefined;
      const match = CONTENT.exec(text.trim());
      if (!match) throw new Error(`${path} holds no cursor: it is another file, or was damaged`);
      const [, cursor, earliest] = match;
      return { cursor, earliest };
    },
    save: (cursor, earliest) =>
      replaceFile(path, `${earliest === undefined ? cursor : `${cursor}\n${earliest}`}\n`),
  };
}

/** Saves the cursor of a watch: one save at a time, and no more often than the interval says. */
export class CheckpointSaver {
  /** The newest cursor, until it is saved; undefined afterwards. */
  private unsaved: Saved | undefined;
  private unsavedEvents = 0;
  private timer: NodeJS.Timeout | undefined;
  private saving: Promise<void> | undefined;
  /** A save became due while another one went on. */
  private isDue = false;
  private failure: { readonly error: unknown } | undefined;

  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly interval: CheckpointInterval = {},
  ) {}

  /** Saves the cursor at which the watch begins, at once: without it, a process that dies soon would begin elsewhere. */
  begin(cursor: string, earliest?: string): void {
    this.unsaved = { cursor, earliest };
    this.save();
  }

  /**
   * Notes the cursor of an event that was handled, or of a heartbeat after it.
   *
   * @param events how many events were handled since the last call: 0 for a heartbeat
   * @param earliest Watch.earliest
   * @throws what an earlier save failed with
   */
  move(cursor: string, events: number, earliest?: string): void {
    this.throwIfFailed();
    const { events: maxEvents = 100, time = 1_000 } = this.interval;
    this.unsaved = { cursor, earliest };
    this.unsavedEvents += events;
    if (this.unsavedEvents >= maxEvents) this.save();
    else this.timer ??= setTimeout(() => this.save(), Math.min(time, LONGEST_TIMER));
  }

  /** Saves the last cursor, if it is not saved. @throws what a save failed with */
  async finish(): Promise<void> {
    this.save();
    while (this.saving) await this.saving;
    this.throwIfFailed();
  }

  /** @throws what a save failed with */
  throwIfFailed(): void {
    if (this.failure) throw this.failure.error;
  }

  private save(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.unsaved) return;
    if (this.saving) {
      this.isDue = true;
      return;
    }
    const { cursor, earliest } = this.unsaved;
    this.isDue = false;
    this.unsaved = undefined;
    this.unsavedEvents = 0;
    // A save of the user's may throw at once, or return nothing: in a timer, that would end the process.
    const saveNow = async (): Promise<void> => this.checkpoint.save(cursor, earliest);
    this.saving = saveNow().then(
      () => this.saveEnded(),
      (error: unknown) => {
        this.failure = { error };
        this.saveEnded();
      },
    );
  }

  private saveEnded(): void {
    this.saving = undefined;
    if (this.isDue) this.save();
  }
}
