import type { Command } from 'commander';

/** Registers `feed completion`. */
export function addCompletionCommand(program: Command): void {
  program.command('completion').description('prints the completion script of a shell');
}
