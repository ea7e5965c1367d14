import { expect, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { RawClient } from '../support/raw-client.js';
import { bytesField } from '../wire/events.js';
import { ask, GOOD, rawClient } from './answer.js';
import { withBystander } from './bystander.js';

const shared = withBystander();

const KIB = 1024;
const MIB = 1024 * KIB;
/** The default of FEED_SESSION_WINDOW. */
const CONNECTION = 16 * MIB;
/** Memory that V8 has not collected yet (up to half of what is alive: bin/feed-server), and the newest events in memory. */
const GARBAGE = 112 * MIB;
/** The memory of a chat: itself, and the answers that wait and are being written. */
const EACH = 64 * KIB;

/** 1 MiB of messages of 9 bytes, whose answers are three times as long. */
const MESSAGES = Buffer.concat(
  Array.from({ length: MIB / 9 }, () => frame(Buffer.from([0x12, 2, 0x61, 0x62]))),
);

test('chats whose client reads nothing hold no more than their connection may, however many they are', async () => {
  const chats = 400;
  const raw = await RawClient.connect(shared.address, { initialWindowSize: 0 });
  const grown = await shared.bystander.growth(async () => {
    for (let i = 0; i < chats; i++) raw.open('Chat').stream.write(MESSAGES);
    await raw.sentAll();
  });
  raw.close();
  console.log(`${chats} chats on one connection: ${(grown / MIB).toFixed(0)} MiB`);
  expect(grown).toBeLessThan(CONNECTION + chats * EACH + GARBAGE);
  expect(await ask(await rawClient(shared.address), 'Chat', frame(GOOD.Chat))).toBe('OK');
});

test('small messages that wait do not keep the memory of large messages that came between them', async () => {
  const chats = 100;
  const rounds = 12_000;
  const raw = await RawClient.connect(shared.address, { initialWindowSize: 0 });
  // A message to a room with no other member is taken at once.
  const filler = frame(
    Buffer.concat([bytesField(2, 'x'.repeat(60 * KIB)), bytesField(3, 'nobody')]),
  );
  const grown = await shared.bystander.growth(async () => {
    const unread = Array.from({ length: chats }, () => raw.open('Chat').stream);
    const taken = raw.open('Chat').stream;
    for (let i = 0; i < rounds; i++) {
      unread[i % chats].write(frame(GOOD.Chat));
      if (!taken.write(filler)) await new Promise((resolve) => taken.once('drain', resolve));
    }
    await raw.sentAll();
  });
  raw.close();
  console.log(`${rounds} messages with 60 KiB between them: ${(grown / MIB).toFixed(0)} MiB`);
  // Garbage that V8 collects late grows with the rate of messages, and not with their number.
  expect(grown).toBeLessThan((rounds * filler.length) / 2);
});
