import { accessSync, constants } from 'node:fs';
import { dirname } from 'node:path';
import { type Checkpoint, fileCheckpoint } from '../checkpoint.js';
import { CommandError, EXIT } from './exit-codes.js';
import type { Output } from './output.js';
import { systemError } from '../system-error.js';

/**
 * Returns a checkpoint in a file, which is never ahead of the data on standard output: a cursor is saved only after the pipe or
 * file that is the standard output has taken the event's line.
 *
 * @throws CommandError if the directory of the file can't be written to
 */
export function checkpointAfterOutput(path: string, output: Output): Checkpoint {
  const file = fileCheckpoint(path);
  const failed = (cause: unknown): never => {
    throw new CommandError(
      `the checkpoint ${path} can't be used: ${systemError(cause)}`,
      EXIT.file,
      {
        cause,
      },
    );
  };
  try {
    accessSync(dirname(path), constants.W_OK);
  } catch (error) {
    failed(error);
  }
  return {
    load: () => file.load().catch(failed),
    async save(cursor, earliest) {
      await output.flush();
      if (!output.closed.aborted) await file.save(cursor, earliest).catch(failed);
    },
  };
}
