import { Controller, UseFilters } from '@nestjs/common';
import { GrpcStreamMethod } from '@nestjs/microservices';
import type { ReceivedFrames } from '../wire/frames.js';
import { callerOf } from './caller.guard.js';
import { answerReflection } from './reflection.js';
import { StatusFilter } from './status.filter.js';
import { type Call, streamed, type Streamed } from './transport/index.js';

/** Tells whoever is known what the service offers, by server reflection. */
@Controller()
@UseFilters(StatusFilter)
export class ReflectionController {
  @GrpcStreamMethod('ServerReflection')
  serverReflectionInfo(requests: AsyncIterable<ReceivedFrames>, call: Call): Streamed {
    callerOf(call);
    return streamed(answerReflection(requests));
  }
}
