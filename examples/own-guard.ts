import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { FeedError } from '../src/feed/errors.js';
import { setCaller } from '../src/grpc/caller.guard.js';
import type { Call } from '../src/grpc/transport/index.js';

const NAMES = new Map([
  ['key-of-ann', 'ann'],
  ['key-of-bob', 'bob'],
]);

/** Knows callers by a header of their own, and lets each use the topics below their name. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const call = context.switchToRpc().getContext<Call>();
    const [key] = call.metadata.get('x-api-key');
    const principal = NAMES.get(String(key));
    if (principal === undefined)
      throw new FeedError('UNAUTHENTICATED', 'send the header x-api-key with a key that is known');
    // Without a topic, the question is whether the caller may do this with any topic at all.
    setCaller(call, {
      principal,
      may: (_verb, topic = `${principal}.x`) => topic.startsWith(`${principal}.`),
    });
    return true;
  }
}
