import type { MessageTypeDefinition } from '@grpc/proto-loader';
import { FeedError } from '../feed/errors.js';
import type { WatchRequest } from '../gen/feed/v1/feed.js';
import { watchRequestProblem } from '../wire/watch-request.js';
import { loadContract } from './contract.js';

const codec = loadContract()['feed.v1.WatchRequest'] as MessageTypeDefinition<object, WatchRequest>;

/**
 * Here and not as grpc-js's deserializer, whose errors all become INTERNAL.
 *
 * @throws FeedError
 */
export function readWatchRequest(message: Buffer): WatchRequest {
  const problem = watchRequestProblem(message);
  if (problem !== undefined) throw new FeedError('REQUEST_INVALID', `the request: ${problem}`);
  return codec.deserialize(message);
}
