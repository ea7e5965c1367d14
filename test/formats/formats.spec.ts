import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, failure, take, upload } from '../support/client.js';
import { runService, temporaryDirectory } from '../support/service.js';

const here = new URL('.', import.meta.url).pathname;
const formats = readdirSync(here)
  .filter((name) => name.endsWith('.mdb.gz'))
  .map((name) => name.replace('.mdb.gz', ''));

/** A cursor ends with the epoch. */
const EPOCH_LENGTH = 6;

interface Held {
  readonly id: string;
  readonly bodyLength: number;
  readonly cursor: string;
}

test('there is a log of each format', () => {
  expect(formats).toEqual(['format-1', 'format-2']);
});

test.each(formats)('a log of %s that an earlier version has written goes on', async (name) => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'log'));
  const file = gunzipSync(readFileSync(join(here, `${name}.mdb.gz`)));
  writeFileSync(join(directory, 'log', 'data.mdb'), file);
  const topics = JSON.parse(readFileSync(join(here, `${name}.json`), 'utf8')) as Record<
    string,
    Held[]
  >;
  const { client } = await runService({ FEED_DATA_DIR: directory });

  for (const [topic, held] of Object.entries(topics)) {
    const events = held.length > 0 ? await take(client, { topic, position: 1 }, held.length) : [];
    expect(events.map(({ id, cursor }) => ({ id, cursor }))).toEqual(
      held.map(({ id, cursor }) => ({ id, cursor })),
    );
    for (const [i, { id, bodyLength }] of held.entries())
      expect(events[i].body).toBe(id.padEnd(bodyLength, '.'));
    for (const [i, { cursor }] of held.slice(0, -1).entries()) {
      const [next] = await take(client, { topic, afterCursor: cursor }, 1);
      expect(next.id).toBe(held[i + 1].id);
    }
    const fresh: Partial<Event> = { id: 'fresh', topic };
    const { result } = await upload(client, [fresh]);
    expect(result!.lastCursor > (held.at(-1)?.cursor ?? '')).toBe(true);
    const start: Partial<WatchRequest> =
      held.length > 0 ? { afterCursor: held.at(-1)!.cursor } : { position: 1 };
    const [after] = await take(client, { topic, ...start }, 1);
    expect(after.id).toBe('fresh');
  }
  // Some of the oldest events were removed. It remembers which: one cursor before the oldest is fine, two are not.
  const [{ id, cursor }] = topics['b.c'];
  expect(id).not.toBe('0');
  const before = (by: number): string => {
    const position = parseInt(cursor.slice(0, -EPOCH_LENGTH), 36) - by;
    return position.toString(36).padStart(10, '0') + cursor.slice(-EPOCH_LENGTH);
  };
  const [oldest] = await take(client, { topic: 'b.c', afterCursor: before(1) }, 1);
  expect(oldest.id).toBe(id);
  const refused = await failure(client.Watch({ topic: 'b.c', afterCursor: before(2) }));
  expect(errorInfo(refused.metadata)?.reason).toBe('CURSOR_EXPIRED');
});
