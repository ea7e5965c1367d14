import { expect, it, vi } from 'vitest';
import { EventLog } from '../../src/repository/event-log.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { TopicSet } from '../../src/wire/topic-set.js';
import { checked } from '../wire/events.js';

it('a reader far behind reads each run of a commit about once, and none of other topics', async () => {
  const engine = new MemoryEngine();
  const log = new EventLog(engine);
  const body = 'x'.repeat(10_000);
  const topics = Array.from({ length: 60 }, (_, i) => `${i % 2 === 0 ? 'own' : 'other'}.${i}`);
  await log.openWriter().append(checked(...topics.map((topic) => ({ topic, id: '', body }))));
  const at = vi.spyOn(engine.runs, 'at');
  const reader = log.readerOf(new TopicSet(['own.*']));
  reader.open(0);
  let events = 0;
  for (let after = 0; after < log.head;) {
    const batch = await reader.read(after, 25_000);
    if (!batch) break;
    events += batch.count;
    after = batch.last;
  }
  expect(events).toBe(30);
  expect(at.mock.calls.every(([topic]) => topic.startsWith('own.'))).toBe(true);
  // Each batch of two runs looks at a third one, which does not fit, and may look at the one before once more.
  expect(at.mock.calls.length).toBeLessThanOrEqual(15 * 4);
  reader.close();
  await log.close();
});
