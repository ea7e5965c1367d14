import type { Logger } from '@nestjs/common';
import { Backoff, pause } from '../backoff.js';
import type { Checkpoint } from '../checkpoint.js';

/** A load or save that fails is tried again until its signal fires. */
interface Patience {
  readonly load: AbortSignal;
  readonly save: AbortSignal;
}

/**
 * Returns a checkpoint that tries again when the given one fails, because a database that is away for a moment should not
 * end a watch. Once the signal has fired, it throws the last failure instead.
 *
 * @param handler the handler's name, for the log
 */
export function patientCheckpoint(
  checkpoint: Checkpoint,
  { load, save }: Patience,
  handler: string,
  logger: Logger,
): Checkpoint {
  const patiently = async <T>(verb: string, work: () => Promise<T>, signal: AbortSignal) => {
    const backoff = new Backoff();
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (signal.aborted) throw error;
        const wait = backoff.next();
        logger.error(
          `${handler}: the checkpoint can't be ${verb}; next attempt in ${Math.round(wait)} ms`,
          stackOf(error),
        );
        await pause(wait, signal);
      }
    }
  };
  return {
    load: () => patiently('loaded', () => checkpoint.load(), load),
    save: (cursor, earliest) => patiently('saved', () => checkpoint.save(cursor, earliest), save),
  };
}

/** Returns an error's stack, which Nest's loggers print below a message. */
export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error);
}
