import { expect, it } from 'vitest';
import { formatCursor } from '../../src/wire/cursor.js';
import { heartbeatEvent } from '../../src/wire/heartbeat.js';
import { eventsIn } from './events.js';

it('a heartbeat is an event with only topic and cursor', () => {
  const cursor = { epoch: 'abcdef', position: 123_456 };
  for (const topic of ['t', 'é.€.🙂', 'x'.repeat(200)]) {
    const { bytes, last } = heartbeatEvent(topic, cursor);
    expect(eventsIn(bytes)).toEqual([
      { id: '', topic, body: '', at: null, attributes: {}, cursor: formatCursor(cursor) },
    ]);
    expect(last).toBe(cursor.position);
  }
});

it('the heartbeat of a log that never held an event has a cursor to resume after', () => {
  const [{ cursor }] = eventsIn(heartbeatEvent('t', { epoch: 'abcdef', position: 0 }).bytes);
  expect(cursor).toBe('0000000000abcdef');
});
