import { answer } from '../support/child-main.js';
import { StreamSet } from './stream-set.js';
import { type Act, type OpenOptions, type Outcomes, type SetName, SETS } from './stream-sets.js';

export type Methods = typeof methods;

const sets = new Map<SetName, StreamSet>();

const methods = {
  /** Opens every set, and returns the client's ports of each. */
  async open(options: OpenOptions): Promise<[SetName, number[]][]> {
    await Promise.all(
      SETS.map(async (name) => sets.set(name, await StreamSet.open(name, options))),
    );
    return [...sets].map(([name, set]) => [name, set.ports]);
  },

  /** Lets the sets in full flow begin to send. */
  flow(): void {
    for (const set of sets.values()) set.flow();
  },

  /** Returns how many streams of each set have reached the set's state. */
  settled(): Partial<Record<SetName, number>> {
    return Object.fromEntries([...sets].map(([name, set]) => [name, set.settled]));
  },

  act(name: SetName, act: Act): void {
    sets.get(name)!.act(act);
  },

  /** Returns when (Date.now()) the server reset each stream of a set that it has reset. */
  resets(name: SetName): readonly number[] {
    return sets.get(name)!.resets;
  },

  /** Returns how the streams ended that have ended. */
  outcomes(): Outcomes {
    const ended = [...sets].filter(([, { outcomes }]) => Object.keys(outcomes).length > 0);
    return Object.fromEntries(ended.map(([name, { outcomes }]) => [name, outcomes]));
  },
};

answer(methods);
