import { setImmediate as nextTurn } from 'node:timers/promises';
import { getHeapSpaceStatistics } from 'node:v8';
import { tuneHeap } from '../../src/heap.js';
import { answer } from '../support/child-main.js';

export type HeapMethods = typeof methods;

const methods = {
  tune: tuneHeap,

  /** Makes objects of which many stay, as when streams open by the thousand; returns V8's young generation in MiB. */
  async grow(): Promise<number> {
    let most = 0;
    for (let round = 0; round < 10; round++) {
      const kept: object[] = [];
      for (let turn = 0; turn < 200; turn++) {
        for (let i = 0; i < 1_000; i++) kept.push({ i, text: String(i), more: [i, turn, i] });
        await nextTurn();
      }
      const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')!;
      most = Math.max(most, young.space_size / 2 ** 20);
    }
    return most;
  },
};

answer(methods);
