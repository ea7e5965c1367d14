import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { LONGEST_TIMER } from './clock.js';

/** Keeps the cursor of a watch across runs of the process. */
export interface Checkpoint {
  /** Returns the cursor that was saved last, or undefined if none was. */
  load(): Promise<string | undefined>;
  /** Resolves when the cursor is safe. Never called again before it has settled. */
  save(cursor: string): Promise<void>;
}

/** How often a checkpoint is saved while events come. It is also saved when the watch ends. */
export interface CheckpointInterval {
  /** After this many events; 100 by default. */
  readonly events?: number;
  /** And this many milliseconds after the first event that was not saved; 1,000 by default. */
  readonly time?: number;
}

/** Cursors are printable and short (docs/protocol.md, "Names"). */
const CURSOR = /^[\x21-\x7e]{1,40}$/;

/**
 * A checkpoint in a file of its own. Its directory must exist. A crash leaves the old cursor or the new one. A file that holds
 * something else is refused, and not written over.
 */
export function fileCheckpoint(path: string): Checkpoint {
  return {
    async load() {
      const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return '';
        throw error;
      });
      const cursor = text.trim();
      if (cursor !== '' && !CURSOR.test(cursor))
        throw new Error(`${path} holds no cursor: it is another file, or was damaged`);
      return cursor || undefined;
    },
    save: (cursor) => replaceFile(path, `${cursor}\n`),
  };
}

/** Replaces a file at once and for good: the new text is flushed before it takes the name, and then the name is. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  await flushed(temporary, 'w', (file) => file.writeFile(text));
  await rename(temporary, path);
  await flushed(dirname(path), 'r');
}

async function flushed(
  path: string,
  flags: string,
  write?: (file: Awaited<ReturnType<typeof open>>) => Promise<void>,
): Promise<void> {
  const file = await open(path, flags);
  try {
    await write?.(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Saves a cursor that moves: one save at a time, and no more often than the interval says. */
export class CheckpointSaver {
  private cursor: string | undefined;
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

  /**
   * Notes the cursor of an event that was handled, or of a heartbeat after it.
   *
   * @throws what an earlier save failed with
   */
  move(cursor: string, events: number): void {
    if (this.failure) throw this.failure.error;
    const { events: maxEvents = 100, time = 1_000 } = this.interval;
    this.cursor = cursor;
    this.unsavedEvents += events;
    if (this.unsavedEvents >= maxEvents) this.start();
    else this.timer ??= setTimeout(() => this.start(), Math.min(time, LONGEST_TIMER));
  }

  /** Saves what is not saved. @throws what a save failed with */
  async finish(): Promise<void> {
    this.start();
    while (this.saving) await this.saving;
    if (this.failure) throw this.failure.error;
  }

  private start(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.cursor === undefined) return;
    if (this.saving) {
      this.isDue = true;
      return;
    }
    const { cursor } = this;
    this.isDue = false;
    this.cursor = undefined;
    this.unsavedEvents = 0;
    // A save of the user's may throw at once, or return nothing: in a timer, that would end the process.
    const save = async (): Promise<void> => this.checkpoint.save(cursor);
    this.saving = save().then(
      () => this.saved(),
      (error: unknown) => {
        this.failure = { error };
        this.saved();
      },
    );
  }

  private saved(): void {
    this.saving = undefined;
    if (this.isDue) this.start();
  }
}
