import { once } from 'node:events';
import type { ClientReadableStream, Metadata } from '@grpc/grpc-js';
import { vi } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import type { EventRepository } from '../../src/repository/event-repository.js';
import { parseCursor } from '../../src/wire/cursor.js';
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

/** Resolves with the positions of feed-head and feed-earliest. */
export async function boundsOfStart(
  call: ClientReadableStream<Event>,
): Promise<{ head: number; earliest: number }> {
  const [headers] = (await within(once(call, 'metadata'), 'the headers')) as [Metadata];
  const position = (name: string): number => parseCursor(String(headers.get(name)[0]))!.position;
  return { head: position('feed-head'), earliest: position('feed-earliest') };
}
