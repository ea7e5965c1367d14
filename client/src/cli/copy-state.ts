import { readFile } from 'node:fs/promises';
import { isAtOrAfter } from '../cursor.js';
import { replaceFile } from '../replace-file.js';
import { CommandError, EXIT } from './exit-codes.js';
import { SendState, type SendPoints } from './send-state.js';
import { systemError } from '../system-error.js';

/** Tells one copy from another: the two servers and the topics. A saved state is good for the same copy only. */
export interface CopyIdentity {
  /** The addresses, as they were given. */
  readonly from: string;
  readonly to: string;
  readonly topics: readonly string[];
}

/** The JSON in the checkpoint of a copy. The cursors are of the log that is copied. */
interface Saved extends CopyIdentity {
  readonly version: 1;
  /** All events up to this cursor are stored in the copy; empty if none is. */
  readonly acknowledged: string;
  /** Watch.earliest of that cursor; null if there is none. */
  readonly earliest: string | null;
  /** No event after this cursor was sent. The events from `acknowledged` to here are in doubt. */
  readonly read: string;
  /** The events in doubt were sent at this time (ISO 8601) or later; null if there are none. */
  readonly sentSince: string | null;
}

/** How far a copy has come, in a file. Its places are cursors of the log that is copied; an empty one is the log's start. */
export class CopyState extends SendState<string> {
  private constructor(
    path: string,
    identity: CopyIdentity,
    points: SendPoints<string>,
    /** Watch.earliest, to go on with: it is saved with the next point. */
    public earliest: string | undefined,
  ) {
    super(
      points,
      (one, other) => !isAtOrAfter(other, one),
      (saved) => write(path, identity, saved, this.earliest),
    );
  }

  /**
   * Reads the state in a file; if there is none, the copy begins.
   *
   * @throws CommandError if it can't be read, or is of another copy
   */
  static async open(path: string, identity: CopyIdentity): Promise<CopyState> {
    const saved = await load(path);
    if (!saved)
      return new CopyState(path, identity, { acknowledged: '', read: '', sentSince: 0 }, undefined);
    for (const [name, was, is] of [
      ['from', saved.from, identity.from],
      ['to', saved.to, identity.to],
      ['of the topics', saved.topics.join(' '), identity.topics.join(' ')],
    ] as const) {
      if (was !== is)
        throw new CommandError(
          `${path} is the checkpoint of a copy ${name} ${was}, not ${is}: go on with the same, or give another --checkpoint`,
          EXIT.usage,
        );
    }
    const { acknowledged, read, earliest } = saved;
    const sentSince = saved.sentSince === null ? 0 : Date.parse(saved.sentSince);
    return new CopyState(path, identity, { acknowledged, read, sentSince }, earliest ?? undefined);
  }
}

async function write(
  path: string,
  { from, to, topics }: CopyIdentity,
  { acknowledged, read, sentSince }: SendPoints<string>,
  earliest: string | undefined,
): Promise<void> {
  const saved: Saved = {
    version: 1,
    from,
    to,
    topics,
    acknowledged,
    earliest: earliest === undefined || isAtOrAfter(acknowledged, earliest) ? null : earliest,
    read,
    sentSince: isAtOrAfter(acknowledged, read) ? null : new Date(sentSince).toISOString(),
  };
  await replaceFile(path, `${JSON.stringify(saved)}\n`).catch((cause: unknown) => {
    throw new CommandError(
      `the checkpoint ${path} can't be saved: ${systemError(cause)}`,
      EXIT.file,
      { cause },
    );
  });
}

/** Reads a saved state; undefined if there is none. @throws CommandError if it can't be read or has another format */
async function load(path: string): Promise<Saved | undefined> {
  try {
    const saved = JSON.parse(await readFile(path, 'utf8')) as Saved;
    if (saved.version === 1 && Array.isArray(saved.topics)) return saved;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    if (code !== undefined)
      throw new CommandError(`${path} can't be read: ${systemError(cause)}`, EXIT.file, { cause });
  }
  throw new CommandError(
    `${path} is no checkpoint of a copy by this version: give another --checkpoint, or remove it to copy from the start`,
    EXIT.file,
  );
}
