import { once } from 'node:events';
import type { ClientReadableStream, Metadata } from '@grpc/grpc-js';
import { expect, vi } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import type { EventRepository } from '../../src/repository/event-repository.js';
import { parseCursor } from '../../src/wire/cursor.js';
import { type FeedClient, upload } from './client.js';
import { within } from './wait.js';

/** Does something while the next watch of a log starts: just before it finds out what is removed of its topics. */
export function whileNextWatchStarts(log: EventRepository, work: () => Promise<void>): void {
  const readerOf = log.readerOf.bind(log);
  vi.spyOn(log, 'readerOf').mockImplementationOnce((topics) => {
    const reader = readerOf(topics);
    const floor = reader.floor.bind(reader);
    reader.floor = async () => {
      await work();
      return floor();
    };
    return reader;
  });
}

/** Expects that a live watch of orders.a begins behind what is removed, and gets what is stored from then on. */
export async function expectNothingMissed(
  call: ClientReadableStream<Event>,
  client: FeedClient,
): Promise<void> {
  const [headers] = (await within(once(call, 'metadata'), 'the headers')) as [Metadata];
  const position = (name: string): number => parseCursor(String(headers.get(name)[0]))!.position;
  expect(position('feed-head')).toBeGreaterThanOrEqual(position('feed-earliest'));
  await upload(client, [{ topic: 'orders.a', id: 'later' }]);
  const [event] = (await within(once(call, 'data'), 'an event')) as [Event];
  expect(event.id).toBe('later');
  call.cancel();
}
