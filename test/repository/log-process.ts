import { Child, type ChildOptions } from '../support/child.js';
import type { Methods } from './log-process-main.js';

export type LogProcessOptions = ChildOptions;

/** A process of its own with a log. */
export class LogProcess extends Child<Methods> {
  constructor(options?: LogProcessOptions) {
    super(new URL('log-process-main.ts', import.meta.url), options);
  }
}
