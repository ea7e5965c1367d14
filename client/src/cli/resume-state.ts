import { createHash, randomBytes } from 'node:crypto';
import { type FileHandle, readFile } from 'node:fs/promises';
import { replaceFile } from '../replace-file.js';
import { CommandError, EXIT } from './exit-codes.js';
import { type Place, START } from './line-blocks.js';
import { systemError } from './system-error.js';

/** The JSON in `<file>.feed-resume`. */
interface Saved {
  readonly version: 1;
  readonly topic: string;
  readonly address: string;
  /** Random. The id of a line's event is `<key>-<offset of the line>`, such as `Qw3xUZ1bTk9d-4096`. */
  readonly key: string;
  /** All lines before this place are stored. */
  readonly acknowledged: Place;
  /** The SHA-256 of up to 4,096 bytes before that place, in base64. It tells this file from another one of its name. */
  readonly before: string;
  /** No line after this place was sent. The lines from `acknowledged` to here are in doubt. */
  readonly read: Place;
  /** The lines in doubt were sent at this time (ISO 8601) or later; null if there are none. */
  readonly sentSince: string | null;
}

/** The lines in doubt: they were sent, and it is unknown whether they are stored. */
interface Doubt {
  /** Their number. Those that are no events, such as empty ones of NDJSON, count as well. */
  readonly events: number;
  /** They were sent at this time or later. */
  readonly since: Date;
  /** The end of the last of them. */
  readonly end: Place;
}

/** This many bytes before the acknowledged place tell a file from another. */
const COMPARED_BYTES = 4_096;

/**
 * How far the upload of a file has come. It is saved beside the file, in `<file>.feed-resume`, before lines are sent and after
 * they are acknowledged. So after a kill it is known which lines are stored, and which are in doubt.
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

  /**
   * The value of `sentSince` after the next acknowledgement (Date.now()): the time of the last acknowledgement, or of the first
   * sending. Lines that the next acknowledgement leaves in doubt were not sent before that.
   */
  private nextSince: number;
  private saving: Promise<void> = Promise.resolve();
  private isSaveQueued = false;

  /**
   * Reads the saved state of a file.
   *
   * @param path of the state
   * @param dataPath of the file that is uploaded, for errors
   * @returns `none` if there is no state; undefined if it is of another file: the one of the state was replaced, cut or changed
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

  /** Returns the state of an upload that begins at the start of the file, whatever was saved. */
  static begin(path: string, file: FileHandle, topic: string, address: string): ResumeState {
    const key = randomBytes(9).toString('base64url');
    return new ResumeState(path, file, topic, address, key, START, START, 0);
  }

  /** All lines before this place are stored. */
  get acknowledged(): Place {
    return this.acknowledgedPlace;
  }

  /** The lines in doubt, which begin at the acknowledged place; undefined if there are none. */
  get doubtful(): Doubt | undefined {
    const events = this.readPlace.line - this.acknowledgedPlace.line;
    if (events === 0) return undefined;
    return { events, since: new Date(this.sentSince), end: this.readPlace };
  }

  /** Notes that lines up to `place` are about to be sent. Resolves when that is saved. */
  async beforeSending(place: Place): Promise<void> {
    if (place.offset <= this.readPlace.offset) return; // They are in doubt already.
    if (this.readPlace.offset === this.acknowledgedPlace.offset) {
      this.sentSince = Date.now();
      this.nextSince = this.sentSince;
    }
    this.readPlace = place;
    await this.save();
  }

  /** Notes that all lines before `place` are stored. That is saved soon. */
  acknowledge(place: Place): void {
    this.acknowledgedPlace = place;
    if (place.offset > this.readPlace.offset) this.readPlace = place;
    // Calls follow one another, so lines that are not acknowledged now were sent after the acknowledgement before this one. For
    // those of a call that broke, see broke().
    this.sentSince = this.nextSince;
    this.nextSince = Date.now();
    this.save().catch(() => {}); // The next save, or finish(), throws it as well.
  }

  /** Notes that a call broke: the lines that it sent stay in doubt, since the time when it sent them. */
  broke(): void {
    this.nextSince = this.sentSince;
  }

  /** Notes that no line after `place` was sent: fewer lines are in doubt than were read. */
  async narrowDoubt(place: Place): Promise<void> {
    this.readPlace = place;
    await this.save();
  }

  /** Decides about the lines in doubt: `again` takes them for not stored, so that they are sent again; `skip` for stored. */
  async settleDoubt(how: 'again' | 'skip'): Promise<void> {
    if (how === 'skip') this.acknowledgedPlace = this.readPlace;
    else this.readPlace = this.acknowledgedPlace;
    await this.save();
  }

  /** Resolves when the state is saved. @throws CommandError if it can't be saved */
  async finish(): Promise<void> {
    await this.save();
  }

  /** Saves the state after the save under way. Several calls meanwhile make one save. */
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

/** Reads a saved state; undefined if there is none. @throws CommandError if it can't be read or has another format */
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

/** Returns the hash of the bytes before an offset (`Saved.before`). */
async function hashBefore(file: FileHandle, offset: number): Promise<string> {
  const length = Math.min(COMPARED_BYTES, offset);
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, offset - length);
  return createHash('sha256').update(bytes.subarray(0, bytesRead)).digest('base64');
}
