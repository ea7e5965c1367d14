import { Injectable } from '@nestjs/common';

/**
 * Whether the service takes new work: from when the store is open and everything listens, until it
 * drains. Full disks and slow stores do not count: reads go on.
 */
@Injectable()
export class Readiness {
  private state: 'starting' | 'ready' | 'draining' = 'starting';
  private listeners: ((ready: boolean) => void)[] = [];

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
    this.state = state;
    for (const listener of this.listeners) listener(this.ready);
  }
}
