import type { Command } from 'commander';

/** Registers `feed chat`. */
export function addChatCommand(program: Command): void {
  program.command('chat').description('');
}
