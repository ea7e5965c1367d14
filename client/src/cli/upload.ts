import type { Command } from 'commander';

/** Registers `feed upload`. */
export function addUploadCommand(program: Command): void {
  program.command('upload').description('');
}
