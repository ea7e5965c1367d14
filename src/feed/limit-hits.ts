import { Injectable } from '@nestjs/common';

/** How often each limit was met since the start, by the name of its setting. */
@Injectable()
export class LimitHits {
  readonly counts = new Map<string, number>();

  add(limit: string): void {
    this.counts.set(limit, (this.counts.get(limit) ?? 0) + 1);
  }
}
