import { readFile } from 'node:fs/promises';
import { replaceFile } from './replace-file.js';

/** Keeps the cursor of a watch across runs of the process. */
export interface Checkpoint {
  /** Returns the cursor that was saved last, or undefined if none was. */
  load(): Promise<string | undefined>;
  /** Resolves when the cursor is safe. The watch makes one save at a time. */
  save(cursor: string): Promise<void>;
}

/** How often a checkpoint is saved while events come. It is also saved when the watch ends. */
export interface CheckpointInterval {
  /** After this many events; 100 by default. */
  readonly events?: number;
  /** And this many milliseconds after the first event since the last save; 1,000 by default. */
  readonly time?: number;
}

/**
 * Returns a checkpoint in a file of its own, `path`. Its directory must exist and be writable. A crash leaves the old cursor or
 * the new one. load() and save() reject with node's error if the file can't be read or replaced.
 */
export function fileCheckpoint(path: string): Checkpoint {
  return {
    async load() {
      try {
        return (await readFile(path, 'utf8')).trim() || undefined;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      }
    },
    save: (cursor) => replaceFile(path, `${cursor}\n`),
  };
}

/** Saves the cursor of a watch: one save at a time, and no more often than the interval says. */
export class CheckpointSaver {
  /** The cursor that is not saved yet; undefined if there is none. */
  private cursor: string | undefined;
  private unsavedEvents = 0;
  private timer: NodeJS.Timeout | undefined;
  private saving: Promise<void> | undefined;
  private failure: { readonly error: unknown } | undefined;

  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly interval: CheckpointInterval = {},
  ) {}

  /**
   * Notes the cursor of an event that was handled, or of a heartbeat after it.
   *
   * @param events how many events were handled since the last call: 0 for a heartbeat
   * @throws what an earlier save failed with
   */
  move(cursor: string, events: number): void {
    if (this.failure) throw this.failure.error;
    const { events: maxEvents = 100, time = 1_000 } = this.interval;
    this.cursor = cursor;
    this.unsavedEvents += events;
    if (this.unsavedEvents >= maxEvents) this.save();
    else this.timer ??= setTimeout(() => this.save(), time);
  }

  /** Saves the last cursor, if it is not saved. @throws what a save failed with */
  async finish(): Promise<void> {
    this.save();
    while (this.saving) await this.saving;
    if (this.failure) throw this.failure.error;
  }

  private save(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.saving || this.cursor === undefined) return; // saveEnded() starts the next save.
    const { cursor } = this;
    this.cursor = undefined;
    this.unsavedEvents = 0;
    this.saving = this.checkpoint.save(cursor).then(
      () => this.saveEnded(),
      (error: unknown) => {
        this.failure = { error };
        this.saveEnded();
      },
    );
  }

  private saveEnded(): void {
    this.saving = undefined;
    const { events: maxEvents = 100 } = this.interval;
    if (this.unsavedEvents >= maxEvents) this.save();
  }
}
