import type { IncomingMessage, ServerResponse } from 'node:http';
import { Controller, Get, Req, Res } from '@nestjs/common';
import { Watches } from '../feed/watch.js';
import { pump } from '../wire/pump.js';
import type { EventFormat } from './event-format.js';
import { ClientGone, type HttpCall } from './http-call.js';
import { HttpCalls, type LimitedMethod } from './http-calls.js';
import { isTemporary } from './http-status.js';
import { problemOf, sendProblem } from './problem.js';
import { ResponseSink } from './response-sink.js';
import { formatOf, lastEventId, readWatchQuery } from './watch-query.js';

const WATCH: LimitedMethod = { name: 'Watch', endless: true, isStream: true, kind: 'watches' };

/** `GET /v1/events`: a watch, as Server-Sent Events or as a JSON object a line. */
@Controller()
export class WatchController {
  constructor(
    private readonly calls: HttpCalls,
    private readonly watches: Watches,
  ) {}

  @Get('v1/events')
  watch(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    const format = formatOf(request);
    return this.calls.serve(
      WATCH,
      request,
      response,
      (call) => this.send(call, format),
      (call, error) => end(call, format, error),
    );
  }

  /** Ends with the error that ended the watch: a watch has no other end. */
  private async send(call: HttpCall, format: EventFormat): Promise<void> {
    const { request, response, signal, caller } = call;
    const { start, batches } = await this.watches.watch(readWatchQuery(request), caller, call);
    signal.throwIfAborted();
    begin(response, format, {
      'feed-head': start.head,
      'feed-earliest': start.earliest,
      'feed-start': batches.cursor,
    });
    response.write(format.beginning(batches.cursor));
    await pump(batches, new ResponseSink(signal, response, format));
  }
}

function begin(
  response: ServerResponse,
  { contentType }: EventFormat,
  headers: Readonly<Record<string, string>>,
): void {
  response.writeHead(200, {
    'content-type': contentType,
    'cache-control': 'no-store',
    // nginx would collect events before it sends them on.
    'x-accel-buffering': 'no',
    ...headers,
  });
  response.flushHeaders();
}

/**
 * Ends the answer with the reason. A browser stops for good at any status but 200, so one that connects again gets a temporary error as a stream that
 * ends.
 */
function end(call: HttpCall, format: EventFormat, error: unknown): void {
  const { request, response } = call;
  if (error instanceof ClientGone || response.destroyed) return;
  if (!response.headersSent) {
    if (lastEventId(request) === '' || !isTemporary(error)) {
      sendProblem(request, response, error);
      return;
    }
    begin(response, format, {});
  }
  response.end(format.ending(problemOf(error), isTemporary(error)));
  call.closeAfterAnswer();
}
