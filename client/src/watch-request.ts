import { WatchRequest } from './gen/feed/v1/feed.js';

/** Encodes a request for Watch. What is left out is as in an empty message. */
export function watchRequest(request: Partial<WatchRequest>): Uint8Array {
  const whole: WatchRequest = {
    topic: '',
    topics: [],
    skipRemoved: false,
    heartbeat: undefined,
    ...request,
  };
  return WatchRequest.encode(whole).finish();
}
