import { Injectable } from '@nestjs/common';
import type { Door } from '../feed/door.js';
import type { FeedError } from '../feed/errors.js';
import { feedStatus } from './feed-status.js';
import { StreamStrategy } from './transport/index.js';

/** Lets the drain of the process end the gRPC server's calls and connections. */
@Injectable()
export class GrpcDoor implements Door {
  constructor(private readonly strategy: StreamStrategy) {}

  stopAccepting(reason: FeedError): void {
    this.strategy.stopAccepting(feedStatus(reason));
  }

  closeUnread(): void {
    this.strategy.closeBusyConnections();
  }
}
