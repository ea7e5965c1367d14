import { setImmediate as turn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { inTurn, nextTurn } from '../../src/repository/turns.js';

it('one part of all searches goes on in a turn of the event loop, in the order in which they wait', async () => {
  const done: string[] = [];
  inTurn(() => {
    done.push('a');
    inTurn(() => done.push('a again'));
  });
  void nextTurn().then(() => done.push('b'));
  inTurn(() => done.push('c'));
  const seen: number[] = [];
  for (let i = 0; i < 5; i++) {
    await turn();
    seen.push(done.length);
  }
  expect(done).toEqual(['a', 'b', 'c', 'a again']);
  expect(seen).toEqual([1, 2, 3, 4, 4]);
});

it('a part that fails leaves the others their turns', async () => {
  const failing = nextTurn().then(() => Promise.reject(new Error('it fails')));
  const other = nextTurn();
  await expect(failing).rejects.toThrow('it fails');
  await other;
});
