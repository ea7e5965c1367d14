import { createHash, type Hash, randomBytes } from 'node:crypto';
import { type FileHandle, readFile } from 'node:fs/promises';
import { replaceFile } from '../replace-file.js';
import { CommandError, EXIT } from './exit-codes.js';
import { type Place, readFile as readBytes, START } from './line-blocks.js';
import { type SendPoints, SendState } from './send-state.js';
import { systemError } from '../system-error.js';

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
  /** Tells whether the lines in doubt are still the same. Earlier versions did not save it. */
  readonly sent?: SentHash;
  /** The lines in doubt were sent at this time (ISO 8601) or later; null if there are none. */
  readonly sentSince: string | null;
}

/** The hash of the bytes that were sent last. */
interface SentHash {
  /** The offset of the first of these bytes, which is not after the acknowledged place. They end at `Saved.read`. */
  readonly from: number;
  /** Their SHA-256, in base64. */
  readonly hash: string;
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

/** A signal that does not fire. */
const NEVER = new AbortController().signal;

/** A SentHash begins anew at the acknowledged place once it has more acknowledged bytes than this. */
const MOST_HASHED_BYTES = 16 * 2 ** 20;

/**
 * How far the upload of a file has come. It is saved beside the file, in `<file>.feed-resume`, before lines are sent and after
 * they are acknowledged. So after a kill it is known which lines are stored, and which are in doubt.
 */
export class ResumeState extends SendState<Place> {
  private constructor(
    path: string,
    file: FileHandle,
    topic: string,
    address: string,
    readonly key: string,
    points: SendPoints<Place>,
    sent = new SentBytes(file, points.acknowledged.offset),
  ) {
    super(
      points,
      (one, other) => one.offset > other.offset,
      (saved) => write(path, file, { topic, address, key }, saved, sent),
    );
  }

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
    const { key, acknowledged, read } = saved;
    const sent = new SentBytes(file, saved.sent?.from ?? acknowledged.offset);
    const isSame =
      size >= acknowledged.offset &&
      (await hashBefore(file, acknowledged.offset)) === saved.before &&
      (!saved.sent || (await sent.hashUpTo(read.offset)) === saved.sent.hash);
    if (!isSame) return undefined;
    const sentSince = saved.sentSince === null ? 0 : Date.parse(saved.sentSince);
    const points = { acknowledged, read, sentSince };
    return new ResumeState(path, file, topic, address, key, points, sent);
  }

  /** Returns the state of an upload that begins at the start of the file, whatever was saved. */
  static begin(path: string, file: FileHandle, topic: string, address: string): ResumeState {
    const key = randomBytes(9).toString('base64url');
    const points = { acknowledged: START, read: START, sentSince: 0 };
    return new ResumeState(path, file, topic, address, key, points);
  }

  /** The lines in doubt, which begin at the acknowledged place; undefined if there are none. */
  get doubtful(): Doubt | undefined {
    const { doubt, acknowledged } = this;
    return doubt && { events: doubt.end.line - acknowledged.line, ...doubt };
  }
}

async function write(
  path: string,
  file: FileHandle,
  upload: Pick<Saved, 'topic' | 'address' | 'key'>,
  { acknowledged, read, sentSince }: SendPoints<Place>,
  sent: SentBytes,
): Promise<void> {
  const isCertain = acknowledged.offset === read.offset;
  try {
    const saved: Saved = {
      version: 1,
      ...upload,
      acknowledged,
      before: await hashBefore(file, acknowledged.offset),
      read,
      sent: await sent.hashBetween(acknowledged.offset, read.offset),
      sentSince: isCertain ? null : new Date(sentSince).toISOString(),
    };
    await replaceFile(path, `${JSON.stringify(saved)}\n`);
  } catch (cause) {
    throw new CommandError(
      `the state of the upload can't be saved in ${path}: ${systemError(cause)}`,
      EXIT.file,
      { cause },
    );
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

/** Hashes the bytes of a file as they are sent, so that each save reads only those that are new. */
class SentBytes {
  private hash!: Hash;
  private end!: number;

  /** @param from is the offset of the first byte that is hashed */
  constructor(
    private readonly file: FileHandle,
    private from: number,
  ) {
    this.beginAt(from);
  }

  /** Returns the hash of all bytes in doubt, and of some that are acknowledged. */
  async hashBetween(acknowledged: number, read: number): Promise<SentHash> {
    // Fewer bytes are in doubt than were hashed when an upload has failed before it sent all that was read.
    if (acknowledged - this.from > MOST_HASHED_BYTES || read < this.end) this.beginAt(acknowledged);
    return { from: this.from, hash: await this.hashUpTo(read) };
  }

  /** Returns the hash of the bytes up to `end`, or to the end of a file that is shorter. */
  async hashUpTo(end: number): Promise<string> {
    for await (const bytes of readBytes(this.file, this.end, NEVER, end)) {
      this.hash.update(bytes);
      this.end += bytes.length;
    }
    return this.hash.copy().digest('base64');
  }

  private beginAt(offset: number): void {
    this.from = offset;
    this.end = offset;
    this.hash = createHash('sha256');
  }
}
