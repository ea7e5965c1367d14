import type { IncomingMessage, ServerResponse } from 'node:http';
import { Controller, Inject, Post, Req, Res } from '@nestjs/common';
import type { z } from 'zod';
import { mostUnfinishedLines } from '../config/body-lines.js';
import { CONFIG, type Config } from '../config/config.js';
import { FeedError } from '../feed/errors.js';
import { LimitHits } from '../feed/limit-hits.js';
import { Uploads } from '../feed/upload.js';
import type { UploadResult } from '../gen/feed/v1/feed.js';
import { topicProblem } from '../wire/topic.js';
import { bodyFormatOf } from './body-format.js';
import { durabilityName } from './durability.js';
import type { HttpCall } from './http-call.js';
import { HttpCalls, type LimitedMethod } from './http-calls.js';
import { LineBudget } from './line-budget.js';
import { UPLOAD_QUERY } from './queries.js';
import { readQuery } from './query.js';
import type { UPLOAD_RESULT } from './shapes.js';
import { UploadedFrames } from './uploaded-frames.js';

const UPLOAD: LimitedMethod = {
  name: 'UploadEvents',
  endless: false,
  isStream: true,
  hasBody: true,
  kind: 'uploads',
};

/** `POST /v1/events`: an upload, whose body has an event a line. */
@Controller()
export class UploadController {
  private readonly budget: LineBudget;

  constructor(
    private readonly calls: HttpCalls,
    private readonly uploads: Uploads,
    hits: LimitHits,
    @Inject(CONFIG) private readonly config: Config,
  ) {
    this.budget = new LineBudget(mostUnfinishedLines(config.receiveBytes), hits);
  }

  @Post('v1/events')
  upload(@Req() request: IncomingMessage, @Res() response: ServerResponse): Promise<void> {
    return this.calls.serve(UPLOAD, request, response, (call) => this.store(call));
  }

  private async store(call: HttpCall): Promise<void> {
    const { request, caller } = call;
    const topic = readQuery(request, UPLOAD_QUERY).topic ?? '';
    const problem = topic === '' ? undefined : topicProblem(topic);
    if (problem !== undefined) throw new FeedError('TOPIC_INVALID', `topic: ${problem}`);
    const format = bodyFormatOf(request, topic);
    const frames = new UploadedFrames(call, format, this.config.maxEventBytes, this.budget);
    const result = await this.uploads.upload(frames, caller, call);
    const { milliseconds, ids } = this.uploads.dedupWindow;
    call.answer(200, resultJson(result), {
      'feed-dedup-window': milliseconds,
      'feed-dedup-ids': ids,
    });
  }
}

const resultJson = ({ durability, ...result }: UploadResult): z.input<typeof UPLOAD_RESULT> => ({
  ...result,
  durability: durabilityName(durability),
});
