import type { ChatState } from './chat.js';
import { type FeedError, hasMoved } from './errors.js';
import type { WatchState } from './watch.js';

/** A line for a log. */
export interface LogEntry {
  readonly level: 'debug' | 'info' | 'warn';
  readonly message: string;
  /** Why a call broke. */
  readonly error?: FeedError;
}

/** Returns a sentence about the state of a watch or a chat. `what` names it, such as `the watch of orders`. */
export function describe(what: string, state: WatchState | ChatState): LogEntry {
  switch (state.name) {
    case 'connecting':
      return { level: 'debug', message: `${what} connects` };
    case 'behind':
      return { level: 'debug', message: `${what} reads what is stored` };
    case 'live':
      return { level: 'info', message: `${what} is live` };
    case 'joined':
      return { level: 'info', message: `${what} has joined` };
    case 'gap':
      return {
        level: 'warn',
        message: `${what} goes on after ${state.earliest}: retention removed events after ${state.after}`,
      };
    case 'ended':
      return { level: 'debug', message: `${what} has ended` };
    case 'reconnecting':
      return retrying(what, state.reason, state.wait);
  }
}

/** Returns a sentence about a call that broke or moves, and is made again after `wait` milliseconds. */
export function retrying(what: string, error: FeedError, wait: number): LogEntry {
  if (hasMoved(error))
    return { level: 'debug', message: `${what} moves to another connection`, error };
  const when = wait === 0 ? 'now' : `in ${Math.ceil(wait)} ms`;
  return { level: 'warn', message: `${what} broke, and goes on ${when}: ${error.message}`, error };
}
