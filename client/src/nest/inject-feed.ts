import { Inject } from '@nestjs/common';
import { Feed } from '../feed.js';

/**
 * Returns the injection token of a client, for `moduleRef.get()` or `overrideProvider()`.
 *
 * @param name the `name` that FeedModule was imported with; the token of a client without a name is the class Feed
 */
export function getFeedToken(name?: string): typeof Feed | string {
  return name === undefined ? Feed : `Feed:${name}`;
}

/** Injects the client of the FeedModule that was imported with this `name`, or without a name. */
export function InjectFeed(name?: string): PropertyDecorator & ParameterDecorator {
  return Inject(getFeedToken(name));
}
