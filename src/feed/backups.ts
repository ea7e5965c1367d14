import { Inject, Injectable } from '@nestjs/common';
import type { Logger } from 'pino';
import {
  AppendError,
  BackupUnsupportedError,
  EventRepository,
} from '../repository/event-repository.js';
import { LOG } from '../telemetry/log.js';
import { EVERY_TOPIC } from '../wire/topic-pattern.js';
import { type Administrator, requireAdministrator } from './administrator.js';
import { FeedError } from './errors.js';
import { afterReads } from './live-calls.js';
import { writeFailed } from './store-errors.js';
import { unlessAborted } from './unless-aborted.js';

/** Bytes of a backup, and the size of all of it. */
export interface BackupPart {
  readonly data: Buffer;
  readonly totalBytes: number;
}

/** While a backup makes data.mdb grow, the service says so this often (milliseconds). */
const NOTICE_INTERVAL = 60_000;
/** The call of a backup ends if its client takes nothing for this long (milliseconds). */
const STALLED = 60_000;

/**
 * The most backups at a time. Each holds a reader of LMDB, which has 126: without one, neither watches nor uploads go on.
 */
const MAX_BACKUPS = 4;

/** The call of a backup: the backup counts what it sends. */
export interface BackupCall {
  bytes: number;
  readonly signal: AbortSignal;
  abort(reason: Error): void;
}

/** Copies the log for operators, while it is in use. */
@Injectable()
export class Backups {
  /** Backups under way. */
  private open = 0;

  constructor(
    private readonly repository: EventRepository,
    @Inject(LOG) private readonly log: Logger,
  ) {}

  /**
   * Yields a backup of the whole log as of now. While it is read, the log's file grows by all that is stored, also where
   * retention makes room. So the call ends if its client takes nothing for a minute, and the backup ends if the disk has no room
   * for what is stored. A disk that does not answer keeps no call from its end.
   *
   * @throws FeedError
   */
  async *backUp(administrator: Administrator, call: BackupCall): AsyncGenerator<BackupPart> {
    requireAdministrator(administrator, EVERY_TOPIC);
    if (this.open === MAX_BACKUPS) throw tooMany();
    this.open++;
    try {
      yield* this.parts(administrator, call);
    } finally {
      this.open--;
    }
  }

  private async *parts(administrator: Administrator, call: BackupCall): AsyncGenerator<BackupPart> {
    const opening = this.repository.backup();
    const backup = await unlessAborted(opening, call.signal).catch((error: unknown) => {
      // If the call ended first, the backup may still begin.
      opening.then(
        (late) => late.release(),
        () => {},
      );
      if (!(error instanceof BackupUnsupportedError)) throw error;
      throw new FeedError('BACKUP_UNSUPPORTED', error.message);
    });
    const { bytes: totalBytes } = backup;
    const { caller, peer } = administrator;
    const who = { context: 'admin', principal: caller.principal, peer };
    const startedAt = performance.now();
    this.log.info({ ...who, bytes: totalBytes }, 'an operator backs the log up');
    const notices = setInterval(() => {
      if (backup.grownBytes > 0)
        this.log.warn(
          { ...who, grownBytes: backup.grownBytes },
          "the log's file grows until the backup is done",
        );
    }, NOTICE_INTERVAL);
    // Not read by `for await`, which at the end of the call would wait for the disk. release() is enough.
    const chunks = backup.chunks()[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value: data } = await unlessAborted(chunks.next(), call.signal);
        if (done) break;
        call.bytes += data.length;
        const stop = abortOnceStalled(call);
        try {
          yield { data, totalBytes };
        } finally {
          stop();
        }
      }
      const ms = Math.round(performance.now() - startedAt);
      this.log.info({ ...who, grownBytes: backup.grownBytes, ms }, 'the backup is done');
    } catch (error) {
      throw error instanceof AppendError ? writeFailed(error) : error;
    } finally {
      clearInterval(notices);
      backup.release();
    }
  }
}

/**
 * Aborts the call if its client takes nothing for a minute. If this process stood still, what the client has sent may be there and
 * not yet read.
 *
 * @returns a function to call once the client has taken what it was sent
 */
function abortOnceStalled(call: BackupCall): () => void {
  let isTaken = false;
  const look = (): void => {
    if (!isTaken) call.abort(tooSlow());
  };
  const timer = setTimeout(() => afterReads(look), STALLED);
  return () => {
    isTaken = true;
    clearTimeout(timer);
  };
}

function tooMany(): FeedError {
  return new FeedError(
    'LIMIT_EXCEEDED',
    `${MAX_BACKUPS} backups are under way, and there may be no more: try again when one has ended`,
    { limit: 'backups', most: String(MAX_BACKUPS) },
  );
}

function tooSlow(): FeedError {
  return new FeedError('TOO_SLOW', `nothing of the backup was read for ${STALLED / 1_000} s`);
}
