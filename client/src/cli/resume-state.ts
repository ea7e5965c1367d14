import { createHash, randomBytes } from 'node:crypto';
import { type FileHandle, readFile } from 'node:fs/promises';
import { replaceFile } from '../checkpoint.js';
import { CommandError, EXIT } from './exit-codes.js';
import type { Place } from './line-blocks.js';
import { systemError } from './system-error.js';

/** What the file beside an uploaded file holds, as JSON. */
interface Saved {
  readonly version: 1;
  readonly topic: string;
  readonly address: string;
  /** The first part of the ids of this file's events; the second is the offset of the line. */
  readonly key: string;
  /** All before this place is stored. */
  readonly acknowledged: Place;
  /** A SHA-256 of the bytes just before that place, which tells this file from another. */
  readonly before: string;
  /** Nothing after this place was sent. */
  readonly read: Place;
  /** What is between the two was sent at this time or later. */
  readonly sentSince: string | null;
}

/** Lines that were sent without an acknowledgement. */
export interface Doubt {
  /** At most so many lines, empty ones included. */
  readonly events: number;
  readonly since: Date;
  readonly end: Place;
}

/** So many bytes before the acknowledged place tell a file from another. */
const COMPARED_BYTES = 4_096;

const START: Place = { offset: 0, line: 0 };

/**
 * How far the upload of a file has come, in a file beside it, `<file>.feed-resume`. It is written before lines are sent, and
 * after they are acknowledged, so that after a kill it is known which lines are stored, and which may be.
 */
export class ResumeState {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
    private readonly topic: string,
    private readonly address: string,
    readonly key: string,
    private acknowledgedPlace: Place,
    private readPlace: Place,
    private sentSince: number,
  ) {
    this.nextSince = sentSince;
  }

  /** When the calls after the last acknowledged one began, at the earliest. */
  private nextSince: number;
  private saving: Promise<void> = Promise.resolve();
  private isSaveQueued = false;

  /**
   * Reads the saved state of a file.
   *
   * @returns `none` if there is none; undefined if the file is not the one of the saved state, but was replaced, truncated
   * or changed
   * @throws CommandError if the state can't be read, or is of another topic or server
   */
  static async open(
    path: string,
    dataPath: string,
    file: FileHandle,
    topic: string,
    address: string,
  ): Promise<ResumeState | 'none' | undefined> {
    const saved = await load(path);
    if (!saved) return 'none';
    for (const [name, was, is] of [
      ['topic', saved.topic, topic],
      ['server', saved.address, address],
    ] as const) {
      if (was !== is)
        throw new CommandError(
          `${path} is of an upload to the ${name} ${was}, not ${is}: remove it to upload ${dataPath} from its start, or give the same ${name}`,
          EXIT.usage,
        );
    }
    const { size } = await file.stat();
    const isSame =
      size >= saved.acknowledged.offset &&
      (await hashBefore(file, saved.acknowledged.offset)) === saved.before;
    if (!isSame) return undefined;
    const { key, acknowledged, read, sentSince } = saved;
    const since = sentSince === null ? 0 : Date.parse(sentSince);
    return new ResumeState(path, file, topic, address, key, acknowledged, read, since);
  }

  /** Begins with the start of the file, whatever was saved. */
  static begin(path: string, file: FileHandle, topic: string, address: string): ResumeState {
    const key = randomBytes(9).toString('base64url');
    return new ResumeState(path, file, topic, address, key, START, START, 0);
  }

  /** All before it is stored. */
  get acknowledged(): Place {
    return this.acknowledgedPlace;
  }

  /** What is after the acknowledged place, up to `end`, and may be stored or not, and since when it may be. */
  get doubtful(): Doubt | undefined {
    const events = this.readPlace.line - this.acknowledgedPlace.line;
    if (events === 0) return undefined;
    return { events, since: new Date(this.sentSince), end: this.readPlace };
  }

  /** Notes that what is before `place` is to be sent. Resolves when that is safe. */
  async beforeSending(place: Place): Promise<void> {
    if (place.offset <= this.readPlace.offset) return; // It may have been sent before.
    if (this.readPlace.offset === this.acknowledgedPlace.offset) {
      this.sentSince = Date.now();
      this.nextSince = this.sentSince;
    }
    this.readPlace = place;
    await this.save();
  }

  /** Notes that all before `place` is stored. It is saved soon. */
  acknowledge(place: Place): void {
    this.acknowledgedPlace = place;
    if (place.offset > this.readPlace.offset) this.readPlace = place;
    // Calls follow one another: what is not acknowledged now was sent after the acknowledgement before, or in a call that broke.
    this.sentSince = this.nextSince;
    this.nextSince = Date.now();
    this.save().catch(() => {}); // The next save, or finish(), throws it as well.
  }

  /** Notes that a call broke: what it sent may be stored. */
  broke(): void {
    this.nextSince = this.sentSince;
  }

  /** Notes that nothing after `place` was sent, which is at most as far as was read. */
  async narrowDoubt(place: Place): Promise<void> {
    this.readPlace = place;
    await this.save();
  }

  /** Takes the lines in doubt for not stored, so that they are sent again, or for stored, so that they are left out. */
  async settleDoubt(how: 'again' | 'skip'): Promise<void> {
    if (how === 'skip') this.acknowledgedPlace = this.readPlace;
    else this.readPlace = this.acknowledgedPlace;
    await this.save();
  }

  /** Waits until all is saved. @throws CommandError if it can't be */
  async finish(): Promise<void> {
    await this.save();
  }

  /** Saves are made one after the other; those that wait become one. */
  private save(): Promise<void> {
    if (this.isSaveQueued) return this.saving;
    this.isSaveQueued = true;
    this.saving = this.saving
      .catch(() => {})
      .then(() => {
        this.isSaveQueued = false;
        return this.write();
      });
    return this.saving;
  }

  private async write(): Promise<void> {
    const { topic, address, key, acknowledgedPlace: acknowledged, readPlace: read } = this;
    const isCertain = acknowledged.offset === read.offset;
    const sentSince = isCertain ? null : new Date(this.sentSince).toISOString();
    try {
      const before = await hashBefore(this.file, acknowledged.offset);
      const saved: Saved = {
        version: 1,
        topic,
        address,
        key,
        acknowledged,
        before,
        read,
        sentSince,
      };
      await replaceFile(this.path, `${JSON.stringify(saved)}\n`);
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      throw new CommandError(
        `the state of the upload can't be saved in ${this.path}: ${code ?? message}`,
        EXIT.file,
        { cause },
      );
    }
  }
}

async function load(path: string): Promise<Saved | undefined> {
  try {
    const saved = JSON.parse(await readFile(path, 'utf8')) as Saved;
    if (saved.version === 1) return saved;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code !== undefined)
      throw new CommandError(`${path} can't be read: ${systemError(cause)}`, EXIT.file, { cause });
  }
  throw new CommandError(
    `${path} is no state of an upload by this version: remove it to upload the file from its start`,
    EXIT.file,
  );
}

async function hashBefore(file: FileHandle, offset: number): Promise<string> {
  const length = Math.min(COMPARED_BYTES, offset);
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, offset - length);
  return createHash('sha256').update(bytes.subarray(0, bytesRead)).digest('base64');
}
