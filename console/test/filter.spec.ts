import { expect, test } from 'vitest';
import { toFilter } from '../src/topic/events/filter.ts';

const line = JSON.stringify({
  id: 'o-1',
  topic: 'orders',
  body: '{"city":"Zürich","path":"C:\\\\temp"}',
  at: '2026-01-31T09:00:00Z',
  cursor: '0000000001fc406w',
  attributes: { traceparent: '00-4bf9' },
});

test.each(['o-1', 'ORDERS', 'zürich', '"city":"', 'C:\\\\temp', 'traceparent', '4bf9'])(
  'finds %s',
  (text) => expect(toFilter(text)!(line)).toBe(true),
);

test.each(['o-2', 'body', 'cursor', '0000000001', '2026', '\n'])('does not find %j', (text) =>
  expect(toFilter(text)!(line)).toBe(false),
);

test('the empty text is no filter', () => expect(toFilter('')).toBe(undefined));
