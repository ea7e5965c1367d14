import { Injectable } from '@nestjs/common';

/** The states, in their order. */
export const STATES = ['starting', 'ready', 'draining'] as const;

export type State = (typeof STATES)[number];

/**
 * Says whether the service takes new work. It is `starting` until the store is open and everything listens; started()
 * makes it `ready`, and drain() makes it `draining`, from either state and for good. A full disk or a slow store does not
 * change it, because reads go on.
 */
@Injectable()
export class Readiness {
  private current: State = 'starting';
  private listeners: ((ready: boolean) => void)[] = [];

  get state(): State {
    return this.current;
  }

  get ready(): boolean {
    return this.state === 'ready';
  }

  started(): void {
    if (this.state === 'starting') this.become('ready');
  }

  drain(): void {
    this.become('draining');
  }

  onChange(listener: (ready: boolean) => void): void {
    this.listeners.push(listener);
  }

  private become(state: 'ready' | 'draining'): void {
    this.current = state;
    for (const listener of this.listeners) listener(this.ready);
  }
}
