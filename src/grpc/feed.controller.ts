import { Controller, UseFilters } from '@nestjs/common';
import { GrpcStreamMethod } from '@nestjs/microservices';
import { Chats } from '../feed/chat.js';
import { Uploads } from '../feed/upload.js';
import { Watches } from '../feed/watch.js';
import type { UploadResult } from '../gen/feed/v1/feed.js';
import type { ReceivedFrames } from '../wire/frames.js';
import { MAX_TOPIC_BYTES } from '../wire/topic.js';
import { StatusFilter } from './status.filter.js';
import { readWatchRequest } from './watch-request.js';
import { Call, streamed, type Streamed } from './transport/index.js';

@Controller()
@UseFilters(StatusFilter)
export class FeedController {
  constructor(
    private readonly watches: Watches,
    private readonly uploads: Uploads,
    private readonly chats: Chats,
  ) {}

  @GrpcStreamMethod('FeedService')
  async watch(message: Buffer, call: Call): Promise<Streamed> {
    const request = readWatchRequest(message);
    call.notes.topic = request.topic.slice(0, MAX_TOPIC_BYTES);
    const { start, batches } = await this.watches.watch(request);
    call.sendHeaders({ 'feed-head': start.head, 'feed-earliest': start.earliest });
    return streamed(batches);
  }

  @GrpcStreamMethod('FeedService')
  uploadEvents(events: AsyncIterable<ReceivedFrames>, call: Call): Promise<UploadResult> {
    return this.uploads.upload(events, ({ topics, count, bytes }) => {
      call.events += count;
      call.bytes += bytes;
      call.notes.topic ??= topics[0].topic;
    });
  }

  @GrpcStreamMethod('FeedService')
  chat(messages: AsyncIterable<ReceivedFrames>, call: Call): Streamed {
    return streamed(this.chats.chat(messages, call));
  }
}
