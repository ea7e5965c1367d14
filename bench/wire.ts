// Measures what an event costs in each function of src/wire: npm run bench:wire
import { EventChecker } from '../src/wire/check-events.js';
import { chatMessagesIn, echoes } from '../src/wire/chat-message.js';
import { stampCursors } from '../src/wire/cursor.js';
import { messagesIn } from '../src/wire/frames.js';
import { concatenate } from '../src/wire/slab.js';
import { EventMaker, message } from './events.ts';

const EVENTS = 400;
const ROUNDS = 5;
const ROUND_MILLISECONDS = 300;
/** The field `at` of an event, encoded. */
const TIME = Buffer.from([(4 << 3) | 2, 6, (1 << 3) | 0, 0x80, 0x8c, 0xa4, 0xc9, 0x06]);

/** Events without a time. */
const bare = new EventMaker('bench.events', 0).make(EVENTS);
const timed = Buffer.concat(
  [...messagesIn(bare)].map((event) => framed(Buffer.concat([event, TIME]))),
);
/** Events without an id and without a time. */
const withoutId = Buffer.concat(
  Array.from({ length: EVENTS }, () => message([2, 'bench.events'], [3, 'x'.repeat(100)])),
);
const german = Buffer.concat(
  Array.from({ length: EVENTS }, (_, i) =>
    message([1, `id-${i}`], [2, 'bench.events'], [3, 'äöü'.repeat(16)]),
  ),
);
const stored = checked(timed).topics[0].bytes;
const chatMessages = Buffer.concat(
  Array.from({ length: EVENTS }, () => message([1, 'me'], [2, 'x'.repeat(100)])),
);
const pieces = Array.from({ length: 8 }, () => stored.subarray(0, stored.length / 8));

const works: readonly (readonly [what: string, work: () => unknown])[] = [
  ['check and copy an event', () => checked(timed)],
  ['... that gets its time', () => checked(bare)],
  ['... that gets its id as well', () => checked(withoutId)],
  ['... that is not all ASCII', () => checked(german)],
  ['stamp its cursor', () => stampCursors(stored, 'abcdef', 1)],
  ['merge its bytes into a run', () => concatenate(pieces, Buffer.allocUnsafe(stored.length))],
  ['find its frame', () => [...messagesIn(stored)].length],
  ['echo a chat message', () => echoes([...chatMessagesIn({ pieces: [chatMessages] })])],
];

console.log(`${'ns an event'.padEnd(34)}${'median'.padStart(8)}${'best'.padStart(8)}`);
for (const [what, work] of works) {
  measure(work);
  const rounds = Array.from({ length: ROUNDS }, () => measure(work)).toSorted((a, b) => a - b);
  const cells = [rounds[Math.floor(ROUNDS / 2)], rounds[0]].map((ns) => ns.toFixed(0).padStart(8));
  console.log(`${what.padEnd(34)}${cells.join('')}`);
}

/** Returns the nanoseconds that `work` takes for one of its EVENTS events. */
function measure(work: () => unknown): number {
  const start = performance.now();
  let events = 0;
  while (performance.now() - start < ROUND_MILLISECONDS) {
    work();
    events += EVENTS;
  }
  return ((performance.now() - start) * 1e6) / events;
}

function checked(frames: Buffer): ReturnType<EventChecker['check']> {
  return new EventChecker().check({ pieces: [frames] });
}

function framed(event: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header.writeUInt32BE(event.length, 1);
  return Buffer.concat([header, event]);
}
