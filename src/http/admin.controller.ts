import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Controller, Delete, Get, Param, Req, Res } from '@nestjs/common';
import type { Administrator } from '../feed/administrator.js';
import { noteTopic } from '../feed/live-calls.js';
import { ReplicaName } from '../feed/replica-name.js';
import { Stats } from '../feed/stats.js';
import { Streams, type StreamView } from '../feed/streams.js';
import { Topics } from '../feed/topics.js';
import { version } from '../telemetry/version.js';
import { statsJson, streamJson, topicJson } from './admin-views.js';
import type { HttpCall } from './http-call.js';
import { HttpCalls, type LimitedMethod } from './http-calls.js';
import { NO_QUERY, TOPICS_QUERY } from './queries.js';
import { readQuery } from './query.js';

const unary = (name: string): LimitedMethod => ({ name, endless: false, isStream: false });

/** Serves the methods of FeedAdmin, except Backup, as JSON, and the numbers of the last minutes. */
@Controller()
export class AdminController {
  private version: string | undefined;

  constructor(
    private readonly calls: HttpCalls,
    private readonly topics: Topics,
    private readonly streams: Streams,
    private readonly stats: Stats,
    private readonly replica: ReplicaName,
  ) {}

  @Get('v1/topics')
  listTopics(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(unary('ListTopics'), request, response, async (call) => {
      const { prefix, limit, after } = readQuery(request, TOPICS_QUERY);
      const page = await this.topics.list(
        prefix,
        Number(limit),
        after,
        administratorOf(call),
        call.signal,
      );
      call.answer(200, {
        topics: page.topics.map(topicJson),
        nextPageToken: page.next,
        replica: this.replica.text,
      });
    });
  }

  @Get('v1/topics/:topic')
  getTopic(
    @Req() request: IncomingMessage,
    @Res() response: ServerResponse,
    @Param('topic') topic: string,
  ): Promise<void> {
    return this.calls.serve(unary('GetTopic'), request, response, async (call) => {
      readQuery(request, NO_QUERY);
      noteTopic(call, topic);
      const view = await this.topics.get(topic, administratorOf(call));
      call.answer(200, { topic: topicJson(view), replica: this.replica.text });
    });
  }

  @Delete('v1/topics/:topic')
  deleteTopic(
    @Req() request: IncomingMessage,
    @Res() response: ServerResponse,
    @Param('topic') topic: string,
  ): Promise<void> {
    return this.calls.serve(unary('DeleteTopic'), request, response, async (call) => {
      readQuery(request, NO_QUERY);
      noteTopic(call, topic);
      const view = await this.topics.delete(topic, administratorOf(call));
      call.answer(200, { removed: topicJson(view), replica: this.replica.text });
    });
  }

  /** Has an answer that may be long, so it is made as the client takes it. */
  @Get('v1/streams')
  listStreams(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(unary('ListStreams'), request, response, async (call) => {
      readQuery(request, NO_QUERY);
      const parts = this.streams.list(administratorOf(call), call);
      // An error of the first part is still a status.
      const first = await parts.next();
      response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' });
      const text = Readable.from(this.streamsText(first, parts));
      await pipeline(text, response, { signal: call.signal });
    });
  }

  @Delete('v1/streams/:id')
  endStream(
    @Req() request: IncomingMessage,
    @Res() response: ServerResponse,
    @Param('id') id: string,
  ): Promise<void> {
    return this.calls.serve(unary('EndStream'), request, response, async (call) => {
      readQuery(request, NO_QUERY);
      const view = await this.streams.end(id, administratorOf(call));
      call.answer(200, { ended: streamJson(view, this.replica.text) });
    });
  }

  @Get('v1/stats')
  readStats(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(unary('ReadStats'), request, response, async (call) => {
      readQuery(request, NO_QUERY);
      const view = await this.stats.read(administratorOf(call));
      this.version ??= version();
      const { replica } = this;
      call.answer(200, statsJson(view, { replica: replica.text, version: this.version }));
    });
  }

  private async *streamsText(
    first: IteratorResult<StreamView[], void>,
    others: AsyncIterable<StreamView[]>,
  ): AsyncGenerator<string> {
    const replica = this.replica.text;
    yield `{"replica":${JSON.stringify(replica)},"streams":[`;
    let separator = '';
    const write = (views: readonly StreamView[]): string => {
      const text =
        separator + views.map((view) => JSON.stringify(streamJson(view, replica))).join();
      separator = ',';
      return text;
    };
    if (!first.done) yield write(first.value);
    for await (const views of others) yield write(views);
    yield ']}';
  }
}

const administratorOf = ({ caller, peer }: HttpCall): Administrator => ({ caller, peer });
