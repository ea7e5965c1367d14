import { Controller, UseFilters, UseGuards } from '@nestjs/common';
import { GrpcStreamMethod } from '@nestjs/microservices';
import { Chats } from '../feed/chat.js';
import { FeedError } from '../feed/errors.js';
import { Uploads } from '../feed/upload.js';
import { Watches } from '../feed/watch.js';
import type { UploadResult } from '../gen/feed/v1/feed.js';
import { BadMessageError, type ReceivedFrames } from '../wire/frames.js';
import { readWatchRequest, type WatchRequest } from '../wire/watch-request.js';
import { callerOf } from './caller.guard.js';
import { LimitGuard } from './limit.guard.js';
import { StatusFilter } from './status.filter.js';
import { Call, HeldRequest, streamed, type Streamed } from './transport/index.js';

@Controller()
@UseFilters(StatusFilter)
@UseGuards(LimitGuard)
export class FeedController {
  constructor(
    private readonly watches: Watches,
    private readonly uploads: Uploads,
    private readonly chats: Chats,
  ) {}

  @GrpcStreamMethod('FeedService')
  async watch(request: HeldRequest, call: Call): Promise<Streamed> {
    const { start, batches } = await this.watches.watch(
      parseRequest(request.take()),
      callerOf(call),
      call,
    );
    call.sendHeaders({ 'feed-head': start.head, 'feed-earliest': start.earliest });
    return streamed(batches);
  }

  @GrpcStreamMethod('FeedService')
  uploadEvents(events: AsyncIterable<ReceivedFrames>, call: Call): Promise<UploadResult> {
    const caller = callerOf(call);
    // Sent before any event is read: a producer that knows the window knows how long it may retry.
    const { milliseconds, ids } = this.uploads.dedupWindow;
    call.sendHeaders({ 'feed-dedup-window': String(milliseconds), 'feed-dedup-ids': String(ids) });
    return this.uploads.upload(events, caller, call);
  }

  @GrpcStreamMethod('FeedService')
  chat(messages: AsyncIterable<ReceivedFrames>, call: Call): Streamed {
    return streamed(this.chats.chat(messages, callerOf(call), call));
  }
}

/** Parses a request here and not in grpc-js's deserializer, whose errors all become INTERNAL. */
function parseRequest(message: Buffer): WatchRequest {
  try {
    return readWatchRequest(message);
  } catch (cause) {
    if (!(cause instanceof BadMessageError)) throw cause;
    throw new FeedError('REQUEST_INVALID', `the request: ${cause.message}`, {}, { cause });
  }
}
