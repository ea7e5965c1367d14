import { status } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type History,
  positionOf,
  type SetWatchRecord,
  type UploadRecord,
  type WatchRecord,
  type WatchStart,
} from './history.js';
import { type Plan, type SetWatcherPlan, TOPICS, type WatcherPlan } from './plan.js';
import { produce, upload } from './producer.js';
import type { ServiceUnderTest } from './restarted-service.js';
import { LAST_READER, STEADY_READER } from './validators.js';
import { follow } from './watcher.js';

/** A watcher that reads all the time: it misses only the events that the server says are removed. */
const STEADY: WatcherPlan = {
  topic: 0,
  late: 0,
  start: 'earliest',
  newest: 0,
  heartbeat: true,
  burst: 1_000,
  pause: 0,
  breaks: [],
};

/**
 * Runs a plan on the service, and returns the history of it.
 *
 * @param name begins the names of its topics, which no other history uses
 * @param lastRestart resolves when the service will not be restarted any more
 */
export async function run(
  plan: Plan,
  name: string,
  service: ServiceUnderTest,
  lastRestart: Promise<void>,
  about: Pick<History, 'retention' | 'isReplicated'>,
): Promise<History> {
  const uploads: UploadRecord[] = [];
  const watches: WatchRecord[] = [];
  const setWatches: SetWatchRecord[] = [];
  const topics = Array.from({ length: TOPICS }, (_, i) => `${name}.${i}`);
  const client = () => service.client(name);
  const ends = new Map<string, number>();
  const readAll = (reader: string): Promise<void>[] =>
    topics.map((_, topic) => followTopic({ ...STEADY, topic }, `${name} topic ${topic} ${reader}`));
  const watching = [
    ...plan.watchers.map((watcher, i) => followTopic(watcher, `${name} watcher ${i}`)),
    ...plan.setWatchers.map((watcher, i) => followSet(watcher, `${name} set watcher ${i}`)),
    ...readAll(STEADY_READER),
  ];

  async function followTopic(watcher: WatcherPlan, called: string): Promise<void> {
    const topic = topics[watcher.topic];
    const isEnd = (cursor: string): boolean => positionOf(cursor) >= (ends.get(topic) ?? Infinity);
    if (watcher.late > 0) await sleep(watcher.late);
    const start = await startOf(watcher, topic);
    const record = ({ seen, ...call }: Omit<SetWatchRecord, 'topics'>): void => {
      // Its heartbeats and events have its topic.
      const own = seen.map((one) => ({ ...one, intact: one.intact && one.topic === topic }));
      watches.push({ ...call, topic, seen: own });
    };
    await follow(watcher, start, called, [topic], client, record, isEnd);
  }

  async function followSet(watcher: SetWatcherPlan, called: string): Promise<void> {
    const own = watcher.members === 'pattern' ? topics : topics.slice(1);
    const members = watcher.members === 'pattern' ? [`${name}.>`] : own;
    const isEnd = (cursor: string): boolean =>
      own.every((topic) => positionOf(cursor) >= (ends.get(topic) ?? Infinity));
    if (watcher.late > 0) await sleep(watcher.late);
    const start = await startOf(watcher, 'none');
    const record = (call: Omit<SetWatchRecord, 'topics'>): void =>
      void setWatches.push({ ...call, topics: own });
    await follow(watcher, start, called, members, client, record, isEnd);
  }

  async function startOf({ start, newest }: WatcherPlan, topic: string): Promise<WatchStart> {
    if (start === 'last') return { is: 'last', count: newest };
    if (start === 'since') return { is: 'since', time: Date.now() - 100 * newest };
    if (start !== 'elsewhere') return { is: start };
    for (;;) {
      const cursors = cursorsFromElsewhere(topic);
      if (cursors.length > 0) return { is: 'after', cursor: cursors[newest % cursors.length] };
      await sleep(20); // there is a cursor at the latest when the last event of each topic is stored
    }
  }

  function cursorsFromElsewhere(topic: string): string[] {
    const stored = uploads.filter(
      ({ events, lastCursor }) => lastCursor && events.at(-1)?.topic !== topic,
    );
    const seen = watches.flatMap((watch) =>
      watch.seen.filter(({ id }) => id === '' || watch.topic !== topic),
    );
    return [...stored.map(({ lastCursor }) => lastCursor), ...seen.map(({ cursor }) => cursor)];
  }

  await Promise.all(
    plan.producers.flatMap((producer, i) =>
      ['', ...(producer.hasTwin ? [' twin'] : [])].map((twin) => {
        const names = { call: `${name} producer ${i}${twin}`, ids: `${name}-${i}`, topics };
        return produce(producer, names, client, (call) => uploads.push(call));
      }),
    ),
  );
  await lastRestart;
  for (const topic of topics) ends.set(topic, await end(topic));

  async function end(topic: string): Promise<number> {
    const events = [{ topic, id: 'end-0' }];
    for (let attempts = 1; ; attempts++) {
      const call = await upload(await client(), events, { burst: 1, pause: 0, ending: 'finish' });
      uploads.push({ producer: `${name} end`, ...call });
      if (call.result.is === 'stored') return positionOf(call.lastCursor);
      // The server resets a stream whose answer is not read within 2 s, and this process may be too busy to read it.
      // Then it uploads again, as any producer would.
      const isReset =
        call.result.is === 'unknown' && call.result.code === status.RESOURCE_EXHAUSTED;
      if (!isReset || attempts === 5)
        throw new Error(`the last upload failed: ${JSON.stringify(call)}`);
    }
  }

  await Promise.all(watching);
  await Promise.all(readAll(LAST_READER));
  return { uploads, watches, setWatches, ...about };
}
