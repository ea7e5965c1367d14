import type { Command } from 'commander';
import { CommandError, EXIT } from './exit-codes.js';

/** Registers `feed bench`. */
export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .description('measures how fast a server is')
    .action(() => {
      throw new CommandError('feed bench is not there yet', EXIT.failed);
    });
}
