import type { MessageTypeDefinition } from '@grpc/proto-loader';
import { FeedError } from '../feed/errors.js';
import type { WatchRequest } from '../gen/feed/v1/feed.js';
import { FieldReader } from '../wire/protobuf.js';
import { watchRequestProblem } from '../wire/watch-request.js';
import { contract } from './contract.js';

const codec = contract['feed.v1.WatchRequest'] as MessageTypeDefinition<object, WatchRequest>;

/** The fields of the oneof, by their numbers. */
const STARTS = { 2: 'afterCursor', 3: 'position', 4: 'since', 5: 'last' } as const;

/**
 * Here and not as grpc-js's deserializer, whose errors all become INTERNAL.
 *
 * @throws FeedError
 */
export function readWatchRequest(message: Buffer): WatchRequest {
  const problem = watchRequestProblem(message);
  if (problem !== undefined) throw new FeedError('REQUEST_INVALID', `the request: ${problem}`);
  const request = codec.deserialize(message);
  const last = lastStart(message);
  for (const start of Object.values(STARTS)) if (start !== last) request[start] = undefined;
  return request;
}

/** Of a oneof the last one counts; protobuf.js keeps all. */
function lastStart(message: Buffer): string | undefined {
  const fields = new FieldReader();
  let last: string | undefined;
  fields.read(message, 0, message.length);
  while (fields.next()) last = (STARTS as Record<number, string>)[fields.field] ?? last;
  return last;
}
