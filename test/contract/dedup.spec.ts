import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { EngineCommit } from '../../src/repository/engine.js';
import { EventLog } from '../../src/repository/event-log.js';
import type { EventRepository } from '../../src/repository/event-repository.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { IdHash } from '../../src/wire/id-hash.js';
import { checked } from '../wire/events.js';
import { NATS_SERVER } from '../support/nats.js';
import { temporaryDirectory } from '../support/service.js';
import { openCheckedLog } from './checked-lmdb.js';
import { natsForTests } from './stream.js';
import { readAll } from './reading.js';
import { testClock } from './test-clock.js';

const WINDOW = { ids: 1000, milliseconds: 60_000 };
let now = 0;

const { openStream } = natsForTests();

const engines: [string, (directory: string) => EventRepository | Promise<EventRepository>][] = [
  [
    'lmdb',
    (directory) =>
      openCheckedLog({ directory, fsync: true, dedup: WINDOW, clock: testClock(() => now) }),
  ],
  [
    'memory',
    () => new EventLog(new MemoryEngine(), { dedup: WINDOW, clock: testClock(() => now) }),
  ],
];
if (NATS_SERVER)
  engines.push([
    'jetstream',
    (directory) => openStream(directory, { dedup: WINDOW, clock: testClock(() => now) }),
  ]);

class FailingEngine extends MemoryEngine {
  failing = false;
  override commit(commit: EngineCommit): Promise<void> {
    return this.failing ? Promise.reject(new Error('no')) : super.commit(commit);
  }
}

/** Opens a log whose commits fail while `engine.failing` is true. */
function openFailing() {
  const engine = new FailingEngine();
  const log = new EventLog(engine, { dedup: WINDOW, clock: testClock(() => now) });
  onTestFinished(() => log.close());
  const append = (...ids: string[]) =>
    log.openWriter().append(checked(...ids.map((id) => ({ id, topic: 't' }))));
  return { engine, append };
}

describe.each(engines)('deduplication (%s)', (engine, openAt) => {
  async function open(directory = temporaryDirectory()) {
    now = Math.max(now, 1_000_000);
    const log = await openAt(directory);
    let closed = false;
    const close = async (): Promise<void> => {
      if (!closed) await log.close();
      closed = true;
    };
    onTestFinished(close);
    const append = (...ids: string[]) =>
      log
        .openWriter()
        .append(checked(...ids.map((id) => ({ id, topic: 't', body: `body of ${id}` }))));
    const stored = async () => (await readAll(log, 't')).map(({ id }) => id);
    return { log, append, stored, close, directory };
  }

  it('says its window', async () => {
    const { log } = await open();
    expect(log.dedupWindow).toEqual(WINDOW);
  });

  it('does not store an id twice, and answers with the cursor of the stored event', async () => {
    const { append, stored } = await open();
    const first = await append('a', 'b');
    const again = await append('b', 'c', 'a');
    expect([first.duplicates, again.duplicates]).toEqual([0, 2]);
    expect(again.last.position).toBe(first.last.position - 1); // the last event sent was a, which is stored before b
    expect(await stored()).toEqual(['a', 'b', 'c']);
  });

  it('leaves out duplicates within one append and within one commit', async () => {
    const { append, stored } = await open();
    const [one, other] = await Promise.all([
      append('a', 'b', 'a', 'c', 'b', 'd'),
      append('d', 'e', 'a'),
    ]);
    expect([one.duplicates, other.duplicates]).toEqual([2, 2]);
    expect(await stored()).toEqual(['a', 'b', 'c', 'd', 'e']);
  });

  it('acknowledges an append of nothing but duplicates', async () => {
    const { append, stored, log } = await open();
    const { last } = await append('a');
    const head = log.head;
    expect(await append('a', 'a')).toEqual({ last, duplicates: 2 });
    expect(log.head).toBe(head);
    expect(await stored()).toEqual(['a']);
  });

  it('does not remember the id of an event whose commit failed', async () => {
    const { engine: disk, append } = openFailing();
    disk.failing = true;
    await expect(append('a', 'b', 'a')).rejects.toThrow('no');
    disk.failing = false;
    expect((await append('b', 'a')).duplicates).toBe(0);
    expect((await append('b', 'a')).duplicates).toBe(2);
  });

  it('does not spend its window on events that the log refused', async () => {
    const { engine: disk, append } = openFailing();
    const before = Array.from({ length: WINDOW.ids }, (_, i) => `before-${i}`);
    await append(...before);
    disk.failing = true;
    const refused = Array.from({ length: 2 * WINDOW.ids }, (_, i) => `refused-${i}`);
    await expect(append(...refused)).rejects.toThrow('no');
    disk.failing = false;
    expect((await append(...before, ...refused.slice(0, 10))).duplicates).toBe(WINDOW.ids);
  });

  it('reads a stored run once for all events of it that are sent again', async () => {
    const { append, log } = await open();
    const ids = Array.from({ length: 200 }, (_, i) => String(i));
    await append(...ids);
    const reads = vi.spyOn(log, 'read');
    expect((await append(...ids)).duplicates).toBe(200);
    expect(reads.mock.calls.length).toBeLessThanOrEqual(2);
    expect((await append(...ids.toReversed())).duplicates).toBe(200);
  });

  it('compares topic and id together', async () => {
    const { log } = await open();
    const writer = log.openWriter();
    await writer.append(checked({ id: 'a', topic: 't' }));
    const { duplicates } = await writer.append(
      checked({ id: 'a', topic: 'u' }, { id: 'at', topic: 'u' }),
    );
    expect(duplicates).toBe(0);
  });

  it('never takes an event whose id the server made for a duplicate', async () => {
    const { log, stored } = await open();
    for (let i = 0; i < 3; i++) await log.openWriter().append(checked({ topic: 't', id: '' }));
    expect(await stored()).toHaveLength(3);
  });

  it('drops no event for the hash of its id alone', async () => {
    const spy = vi.spyOn(IdHash.prototype, 'finish').mockImplementation(function (this: IdHash) {
      this.high = 1;
      this.low = 1;
    });
    onTestFinished(() => spy.mockRestore());
    const { append, stored } = await open();
    const ids = Array.from({ length: 50 }, (_, i) => `id-${i}`);
    expect((await append(...ids)).duplicates).toBe(0);
    expect((await append('other', 'id-47')).duplicates).toBe(1);
    expect(await stored()).toEqual([...ids, 'other']);
  });

  it('forgets an id after the window of time', async () => {
    const { append, stored } = await open();
    await append('a');
    now += WINDOW.milliseconds;
    expect((await append('a')).duplicates).toBe(1);
    now += 1;
    expect((await append('a')).duplicates).toBe(0);
    expect(await stored()).toEqual(['a', 'a']);
  });

  it('forgets an id after the window of ids', async () => {
    const { append } = await open();
    await append('first', 'second');
    await append(...Array.from({ length: WINDOW.ids - 1 }, (_, i) => `id-${i}`));
    expect((await append('second')).duplicates).toBe(1);
    expect((await append('first')).duplicates).toBe(0);
  });

  it('says a shorter window while more ids came within it than it remembers', async () => {
    const { append, log } = await open();
    await append('first');
    now += 1_000;
    await append('second', ...Array.from({ length: WINDOW.ids - 3 }, (_, i) => `id-${i}`));
    expect(log.dedupWindow).toEqual(WINDOW);
    now += 500;
    await append('third', 'fourth');
    now += 500;
    expect(log.dedupWindow).toEqual({ ids: WINDOW.ids, milliseconds: 1_000 });
    await append(...Array.from({ length: WINDOW.ids }, (_, i) => `new-${i}`));
    // Never 0, which would say that no id is remembered.
    expect(log.dedupWindow).toEqual({ ids: WINDOW.ids, milliseconds: 1 });
    now += 2 * WINDOW.milliseconds;
    expect(log.dedupWindow).toEqual(WINDOW);
  });

  if (engine === 'memory') return;

  it('says a shorter window also after a restart', async () => {
    const before = await open();
    await before.append('first');
    now += 1_000;
    await before.append(...Array.from({ length: WINDOW.ids }, (_, i) => `id-${i}`));
    await before.close();
    now += 2_000;
    const after = await open(before.directory);
    expect(after.log.dedupWindow).toEqual({ ids: WINDOW.ids, milliseconds: 2_000 });
  });

  it('remembers as many ids after a restart as before it, however many events had none', async () => {
    const before = await open();
    await before.append('a');
    for (let i = 0; i < 4; i++) {
      const withoutId = Array.from({ length: WINDOW.ids }, () => ({ topic: 't', id: '' }));
      await before.log.openWriter().append(checked(...withoutId));
    }
    await before.close();
    const after = await open(before.directory);
    expect((await after.append('a')).duplicates).toBe(1);
  });

  it('remembers the ids stored before a restart, within the window', async () => {
    const before = await open();
    await before.append('a', 'b');
    now += WINDOW.milliseconds / 2;
    await before.append('c');
    await before.close();
    const after = await open(before.directory);
    expect((await after.append('a', 'b', 'c', 'd')).duplicates).toBe(3);
    await after.close();
    now += WINDOW.milliseconds / 2 + 1;
    const later = await open(before.directory);
    expect((await later.append('a', 'c', 'd')).duplicates).toBe(2);
    expect(await later.stored()).toEqual(['a', 'b', 'c', 'd', 'a']);
  });

  it('remembers every id of a large commit after a restart', async () => {
    const before = await open();
    const many = Array.from({ length: WINDOW.ids }, (_, i) => `many${i}`);
    const { last } = await before.append(...many);
    await before.close();
    const after = await open(before.directory);
    for (const id of [0, 500, 700, WINDOW.ids - 1].map((i) => many[i]))
      expect((await after.append(id)).duplicates).toBe(1);
    expect((await after.append(many[WINDOW.ids - 1])).last.position).toBe(last.position);
  });

  if (engine !== 'lmdb') return;

  it('removes the stored ids of commits outside the window', async () => {
    const { append, log } = await open();
    for (let i = 0; i < 400; i++)
      await append(...Array.from({ length: 10 }, (_, k) => `${i}-${k}`));
    const { store } = (
      log as unknown as { engine: { store: { ids: { db: { getKeysCount(): number } } } } }
    ).engine;
    expect(store.ids.db.getKeysCount()).toBeLessThan(200); // the window of 1,000 ids needs 100 keys of 10 ids each
  });
});
