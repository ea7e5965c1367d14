import { once } from 'node:events';
import { expect, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { codec } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { bytesField, encodeEvent } from '../wire/events.js';
import { answerOf, ask, GOOD, rawClient, STREAMS_REFUSE } from './answer.js';
import { withBystander } from './bystander.js';

const shared = withBystander();

const KIB = 1024;
const MIB = 1024 * KIB;
/** Memory that V8 has not collected yet (up to half of what is alive: bin/feed-server), and that of the calls themselves. */
const GARBAGE = 96 * MIB;

const EVENT = frame(encodeEvent({ topic: 'endless', body: 'x'.repeat(4_000) }));
/** The newest events that the log keeps in memory. */
const TAIL = 32 * MIB;
/** How many bytes the very long upload sends at least. */
const LONG_UPLOAD = 768 * MIB;

test('1,000 calls that announce 1 MiB each, and send 64 KiB of it, take memory for what they sent only', async () => {
  const raw = await rawClient(shared.address);
  const sent = frame(Buffer.alloc(MIB)).subarray(0, 64 * KIB);
  const calls = Array.from({ length: 1_000 }, () => raw.open('UploadEvents'));
  const grown = await shared.bystander.growth(async () => {
    await Promise.all(
      calls.map(({ stream }) => new Promise((resolve) => stream.write(sent, resolve))),
    );
    // This message comes after all of theirs, so that they have arrived when it is answered.
    expect(await ask(raw, 'Chat', frame(GOOD.Chat))).toBe('OK');
  });
  // The 62 MiB that they sent are there twice until V8 has collected the first copy. What they announced would take 1,000 MiB.
  expect(grown).toBeLessThan(2 * calls.length * sent.length + GARBAGE);
  for (const { stream } of calls) stream.end();
  const answers = await Promise.all(calls.map(answerOf));
  expect(new Set(answers)).toEqual(new Set([STREAMS_REFUSE.UploadEvents]));
});

test('300 calls that announce an event over the limit take no memory for it, however much they send', async () => {
  const raw = await rawClient(shared.address);
  const sent = frame(Buffer.alloc(3 * MIB)).subarray(0, 2 * MIB);
  const grown = await shared.bystander.growth(async () => {
    const calls = Array.from({ length: 300 }, () => raw.open('UploadEvents'));
    for (const { stream } of calls) stream.write(sent);
    const answers = await Promise.all(calls.map(answerOf));
    expect(new Set(answers)).toEqual(new Set([STREAMS_REFUSE.UploadEvents]));
  });
  expect(grown).toBeLessThan(2 * GARBAGE);
});

test('a very long upload takes a bounded amount of memory, and is acknowledged when it ends', async () => {
  const raw = await rawClient(shared.address);
  const { stream } = raw.open('UploadEvents');
  const answer: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => answer.push(chunk));
  const events = Array.from({ length: 64 }, () => EVENT);
  const bytes = Buffer.concat(events);
  let sent = 0;
  const uploadFor = async (milliseconds: number, least: number): Promise<void> => {
    const end = performance.now() + milliseconds;
    while (performance.now() < end || sent * EVENT.length < least) {
      sent += events.length;
      if (!stream.write(bytes)) await once(stream, 'drain');
    }
  };
  await uploadFor(1_000, 2 * TAIL);
  const grown = await shared.bystander.growth(() => uploadFor(9_000, LONG_UPLOAD));
  expect(grown).toBeLessThan(LONG_UPLOAD / 4);
  stream.end();
  await once(stream, 'close');
  const result = codec.uploadResult.deserialize(Buffer.concat(answer).subarray(5));
  expect(result).toMatchObject({ received: sent, duplicates: 0 });
}, 180_000);

test('75,000 watches of health keep nothing of the names that they asked for once they have ended, 300 MB', async () => {
  const watch = async (raw: RawClient, name: string): Promise<void> => {
    const { stream } = raw.open('', { ':path': '/grpc.health.v1.Health/Watch' });
    stream.end(frame(bytesField(1, name)));
    await once(stream, 'data');
  };
  const grown = await shared.bystander.growth(async () => {
    for (let i = 0; i < 75_000; i += 500) {
      const raw = await RawClient.connect(shared.address);
      const names = Array.from({ length: 500 }, (_, n) => `${i + n} `.padEnd(4_000, 'x'));
      await Promise.all(names.map((name) => watch(raw, name)));
      raw.close();
    }
  });
  expect(grown).toBeLessThan(2 * GARBAGE);
});
