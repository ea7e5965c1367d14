import { Injectable } from '@nestjs/common';
import type { Door } from '../feed/door.js';
import type { FeedError } from '../feed/errors.js';
import { HttpCalls } from './http-calls.js';

/** Lets the drain of the process end the calls over HTTP. The port goes on to answer probes. */
@Injectable()
export class HttpDoor implements Door {
  constructor(private readonly calls: HttpCalls) {}

  stopAccepting(reason: FeedError): void {
    this.calls.stopAccepting(reason);
  }

  closeUnread(): void {
    this.calls.closeUnread();
  }
}
