import { expect, it } from 'vitest';
import { IdHash } from '../../src/wire/id-hash.js';

it('the hash of a topic and id is the one that existing logs have on disk', () => {
  const topic = new IdHash();
  topic.reset();
  topic.update(Buffer.from('orders'), 0, 6);
  const hash = new IdHash();
  hash.start(topic);
  hash.update(Buffer.from('order-1'), 0, 7);
  hash.finish();
  expect([hash.high, hash.low]).toEqual([-1402803794, 1507333192]);
});
