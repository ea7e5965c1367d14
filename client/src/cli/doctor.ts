import type { Command } from 'commander';
import { CommandError, EXIT } from './exit-codes.js';

/** Registers `feed doctor`. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('checks the way to a server, step by step')
    .action(() => {
      throw new CommandError('feed doctor is not there yet', EXIT.failed);
    });
}
