import { expect, it } from 'vitest';
import { Deduplication } from '../../src/repository/deduplication.js';
import { RecentIds } from '../../src/repository/recent-ids.js';
import type { TopicEvents } from '../../src/wire/check-events.js';
import { checked } from '../wire/events.js';

it('finds the duplicates of a commit in few steps, also where it has a part for each of many topics', () => {
  const parts = 1_000;
  let steps = 0;
  /** The events of one topic. Each look for a position among them is counted. */
  const counting = ({ topic, count, bytes, ids }: TopicEvents): TopicEvents => ({
    topic,
    bytes,
    ids,
    get count() {
      steps++;
      return count;
    },
  });
  const window = { ids: 1_000_000, milliseconds: 60_000 };
  const deduplication = new Deduplication(new RecentIds(window), () => undefined);
  deduplication.begin(1);
  let position = 1;
  let duplicates = 0;
  // Two uploads of the same events: a commit is built topic by topic.
  for (let i = 0; i < parts; i++) {
    const events = () => counting(checked({ id: 'same', topic: `topic-${i}` }).topics[0]);
    for (const part of [events(), events()]) {
      const kept = deduplication.keep(part, position);
      expect(kept.last).toBe(i + 1);
      position += kept.events.count;
      duplicates += kept.duplicates;
    }
  }
  expect(duplicates).toBe(parts);
  expect(steps).toBeLessThan(100 * parts);
});
