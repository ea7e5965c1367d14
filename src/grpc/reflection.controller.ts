import { Controller, UseFilters } from '@nestjs/common';
import { GrpcStreamMethod } from '@nestjs/microservices';
import { limitExceeded } from '../feed/call-limits.js';
import { type LiveCall, LiveCalls } from '../feed/live-calls.js';
import type { ReceivedFrames } from '../wire/frames.js';
import { callerOf } from './caller.guard.js';
import { answerReflection } from './reflection.js';
import { StatusFilter } from './status.filter.js';
import { type Call, streamed, type Streamed } from './transport/index.js';

/** How many calls of reflection may be open at a time, on one connection and in all. */
const MAX_PER_CONNECTION = 100;
const MAX_CALLS = 1_000;

/** Tells whoever is known what the service offers, by server reflection. */
@Controller()
@UseFilters(StatusFilter)
export class ReflectionController {
  private readonly open = new Set<LiveCall>();

  constructor(private readonly calls: LiveCalls) {
    calls.onGone((call) => this.open.delete(call));
  }

  @GrpcStreamMethod('ServerReflection')
  serverReflectionInfo(requests: AsyncIterable<ReceivedFrames>, call: Call): Streamed {
    callerOf(call);
    this.claim(call);
    return streamed(answerReflection(requests));
  }

  /** Counts a call until its end. @throws FeedError LIMIT_EXCEEDED */
  private claim(call: Call): void {
    // Its client may have gone while a guard found out who it is.
    if (!this.calls.has(call)) return;
    let ofConnection = 0;
    for (const { peer } of this.open) if (peer === call.peer) ofConnection++;
    if (ofConnection >= MAX_PER_CONNECTION) throw tooMany(MAX_PER_CONNECTION, 'on this connection');
    if (this.open.size >= MAX_CALLS) throw tooMany(MAX_CALLS, 'in all');
    this.open.add(call);
  }
}

const tooMany = (most: number, where: string): Error =>
  limitExceeded('reflection', most, `${most} calls of reflection are open ${where}`);
