import type { Command } from 'commander';

/** Registers `feed watch`. */
export function addWatchCommand(program: Command): void {
  program.command('watch').description('');
}
