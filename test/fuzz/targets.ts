import assert from 'node:assert/strict';
import { parse as parseYaml } from 'yaml';
import { FeedError } from '../../client/src/errors.js';
import { frame, MessageSplitter } from '../../client/src/grpc/frames.js';
import { parsePolicy, PolicyError } from '../../src/auth/policy.js';
import { Lines } from '../../src/http/lines.js';
import {
  decode,
  encodeEpochs,
  encodeRun,
  FormatError,
} from '../../src/repository/jetstream/message.js';
import { chatMessagesIn, echoes } from '../../src/wire/chat-message.js';
import { EventChecker } from '../../src/wire/check-events.js';
import { formatCursor, parseCursor, stampCursors } from '../../src/wire/cursor.js';
import { frameOfJson } from '../../src/wire/event-json.js';
import { BadMessageError, FRAME_HEADER_BYTES, messagesIn } from '../../src/wire/frames.js';
import { formatTime, parseTime } from '../../src/wire/rfc3339.js';
import { MAX_TOPIC_BYTES, topicProblem } from '../../src/wire/topic.js';
import { MAX_TOPICS, readWatchRequest } from '../../src/wire/watch-request.js';
import {
  bytesField,
  decodeChat,
  decodeEvent,
  encodeChat,
  encodeEvent,
  framed,
  received,
  unframed,
  varintField,
  withoutCursor,
} from '../wire/events.js';
import type { Target } from './fuzz.js';

const text = (...parts: readonly string[]): Buffer[] => parts.map((part) => Buffer.from(part));

/** An input that stands for several messages: each has its length, one byte, in front of it. */
const several = (...messages: readonly Buffer[]): Buffer =>
  Buffer.concat(messages.flatMap((message) => [Buffer.from([message.length]), message]));

function messagesOf(input: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let at = 0; at < input.length; at += 1 + input[at])
    messages.push(input.subarray(at + 1, at + 1 + input[at]));
  return messages;
}

/** Calls a parser. Returns undefined if it refuses its input with an error of this class. */
function accepted<T>(refusal: new (...args: never[]) => Error, parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof refusal) return undefined;
    throw error;
  }
}

const hex = (bytes: Buffer): string => bytes.toString('hex');
const eachByte = (bytes: Buffer): Buffer[] => Array.from(bytes, (byte) => Buffer.of(byte));

/** Returns the time that a text of RFC 3339 says, as V8 reads it. */
const millisecondsOf = (time: string): number =>
  Date.parse(time.toUpperCase().replace(/(\.\d{3})\d+/, '$1'));

/** An event in JSON that was accepted. */
interface WrittenEvent {
  readonly id?: string | null;
  readonly topic?: string | null;
  readonly body?: string | null;
  readonly at?: string | null;
  readonly attributes?: Readonly<Record<string, string>> | null;
}

/** A rule of a policy as it is written. */
interface PolicyRule {
  readonly principals: readonly string[];
  readonly verbs: readonly string[];
  readonly topics: readonly string[];
}

/** Says by a regular expression whether a pattern matches a name. `signs` says what each sign stands for. */
function matches(pattern: string, name: string, signs: Record<string, string>): boolean {
  const parts = Array.from(
    pattern,
    (sign) => signs[sign] ?? sign.replace(/[\\^$.*+?()[\]{}|/]/, String.raw`\$&`),
  );
  return new RegExp(`^${parts.join('')}$`, 'su').test(name);
}

const event = encodeEvent({ id: 'a', topic: 't', body: 'hi', at: { seconds: 1, nanos: 2 } });

export const targets: readonly Target[] = [
  {
    name: 'events',
    seeds: [
      several(event),
      several(event, encodeEvent({ topic: 'orders.created', cursor: '00000000z8k3x9qz' }), event),
      several(Buffer.concat([encodeEvent({ topic: 'ö.日本' }), varintField(99, 7)])),
      several(encodeEvent({ topic: 't', attributes: { traceparent: '00-1-2-01', k: '' } })),
    ],
    words: [
      event,
      encodeEvent({ id: '' }),
      varintField(1, 2n ** 64n - 1n),
      bytesField(4, '\x08\x01'),
    ],
    run(input) {
      const messages = messagesOf(input);
      const checker = new EventChecker();
      const { topics, count } = checker.check(received(...messages));
      assert.equal(count, checker.problem?.index ?? messages.length);
      // As protobuf.js reads them, the events that were accepted are those that are stored, by topic and in order.
      const sent = messages.slice(0, count).map(decodeEvent);
      for (const { topic, bytes } of topics) {
        assert.equal(topicProblem(topic), undefined);
        stampCursors(bytes, 'abcdef', 1);
        for (const message of unframed(bytes)) {
          const stored = decodeEvent(message);
          const at = sent.findIndex((one) => one.topic === topic);
          const [original] = sent.splice(at, 1);
          assert.equal(stored.topic, topic);
          assert.equal(stored.body, original.body);
          assert.deepEqual(stored.attributes, original.attributes);
          if (original.id === '') assert.match(stored.id, /^[\da-f-]{36}$/);
          else assert.equal(stored.id, original.id);
          // What is stored can be sent again, and changes no more.
          const again = new EventChecker();
          const { topics: same } = again.check(received(message));
          assert.equal(again.problem, undefined);
          const [restored] = unframed(same[0].bytes);
          assert.deepEqual(withoutCursor(restored), withoutCursor(message));
        }
      }
      assert.equal(sent.length, 0);
    },
  },
  {
    name: 'watch-request',
    seeds: [
      bytesField(1, 't'),
      Buffer.concat([bytesField(1, 't'), bytesField(2, '00000000z8k3x9qz')]),
      Buffer.concat([bytesField(1, 't'), varintField(3, 2), bytesField(6, varintField(1, 15))]),
      Buffer.concat([bytesField(4, varintField(1, 1_700_000_000)), varintField(5, 10)]),
      Buffer.concat([bytesField(7, 'a'), bytesField(7, 'a.>'), varintField(8, 1)]),
    ],
    words: [varintField(2, 999_999_999), varintField(1, -1n), bytesField(9, 'x')],
    run(input) {
      const request = accepted(BadMessageError, () => readWatchRequest(input));
      if (!request) return;
      assert.ok(request.topics.length > 0 && request.topics.length <= MAX_TOPICS + 2);
      for (const topic of request.topics) assert.ok(topic.isWellFormed());
      const { afterCursor, position, since, last } = request;
      const starts = [afterCursor, position, since, last].filter((start) => start !== undefined);
      assert.ok(starts.length <= 1);
      for (const time of [since, request.heartbeat])
        if (time) assert.ok(Number.isFinite(time.seconds) && Number.isInteger(time.nanos));
    },
  },
  {
    name: 'chat-messages',
    seeds: [
      several(encodeChat({ text: 'hi' })),
      several(encodeChat({ room: 'r', from: 'me', text: 'hi' })),
    ],
    words: [encodeChat({ room: 'r' })],
    run(input) {
      const messages = messagesOf(input);
      const read = accepted(BadMessageError, () => [...chatMessagesIn(received(...messages))]);
      if (!read) return;
      assert.equal(read.length, messages.length);
      const answers = [...messagesIn(echoes(read).bytes)].map(decodeChat);
      for (const [i, message] of messages.entries()) {
        const { room, text: said } = decodeChat(message);
        assert.equal(read[i].room, room);
        assert.deepEqual(answers[i], { from: 'server', text: `echo: ${said}`, room: '' });
      }
    },
  },
  {
    name: 'cursor',
    seeds: text('00000000z8k3x9qz', '7zzzzzzzzzabcdef'),
    run(input) {
      const cursor = parseCursor(input.toString('latin1'));
      if (cursor) assert.equal(formatCursor(cursor), input.toString('latin1'));
    },
  },
  {
    name: 'topic',
    seeds: text('orders.created', 'ö.日本', 'a b', '*'),
    words: text('.', '>', '\u0085', '\u2028'),
    run(input) {
      const topic = input.toString('utf8');
      if (topicProblem(topic) !== undefined) return;
      assert.ok(input.length > 0 && Buffer.byteLength(topic) <= MAX_TOPIC_BYTES);
      assert.ok(!/[\s*>]/.test(topic) && !topic.startsWith('.') && !topic.endsWith('.'));
    },
  },
  {
    name: 'policy',
    seeds: text(
      'rules: []',
      'rules:\n- principals: ["system:serviceaccount:shop:*", ann]\n  verbs: [watch, upload]\n  topics: ["orders.>", audit]\n',
      'rules:\n- &a {principals: ["*"], verbs: [chat], topics: ["*.b"]}\n- *a\n',
      '{"rules": [{"principals": ["a*n"], "verbs": ["admin"], "topics": [">"]}]}',
      'rules: [{principals: ["a*x", "*:web:*", "n*n"], verbs: [upload], topics: ["orders.*", "*.>"]}]',
    ),
    words: text(
      'rules:',
      '- ',
      'principals: [ann]',
      'verbs: [watch, chat]',
      'topics: [audit, "*"]',
      '"*"',
      '\n  ',
      '&b ',
      '*b',
      '<<: ',
      '!!set ',
      '? ',
      '%YAML 1.1\n---\n',
      '# ',
      '|\n',
    ),
    run(input) {
      const yaml = input.toString('utf8');
      const policy = accepted(PolicyError, () => parsePolicy(yaml));
      if (!policy) return;
      const { rules } = parseYaml(yaml, { logLevel: 'error' }) as { rules: PolicyRule[] };
      for (const principal of ['ann', 'system:serviceaccount:shop:web'])
        for (const verb of ['watch', 'upload', 'chat', 'admin'] as const)
          for (const topic of [undefined, 'audit', 'orders', 'orders.created', 'a.b.c']) {
            const isAllowed = rules.some(
              ({ principals, verbs, topics }) =>
                verbs.includes(verb) &&
                principals.some((one) => matches(one, principal, { '*': '.*' })) &&
                (topic === undefined ||
                  topics.some((one) => matches(one, topic, { '*': '[^.]+', '>': '.+' }))),
            );
            const question = `${principal} ${verb} ${topic}`;
            assert.equal(policy.allows(principal, verb, topic), isAllowed, question);
          }
    },
  },
  {
    name: 'stream-message',
    seeds: streamMessages(),
    run(input) {
      const message = accepted(FormatError, () => decode(7, 't', input));
      if (message?.kind !== 'run') return;
      const { run, ids } = message;
      assert.ok(ids.length <= 2 * run.count);
      assert.equal(run.last - run.first + 1, run.count);
    },
  },
  {
    name: 'event-json',
    seeds: text(
      '{"topic":"t","body":"hi"}',
      '{"id":"a","topic":"orders","body":"\\u0001\\"é","at":"2026-01-31T10:00:00.5+01:00","cursor":"0000000001fc406w"}',
      '{"body":null,"attributes":{"k":"v","__proto__":"","traceparent":"00-1-2-01"}}',
    ),
    words: text(
      '"id":',
      '"topic":',
      '"body":',
      '"at":',
      '"attributes":{',
      '"cursor":',
      'null',
      '""',
      '\\ud800',
      '"1969-12-31T23:59:59Z"',
      ',',
      '}',
    ),
    run(input) {
      const read = accepted(BadMessageError, () => frameOfJson(input, 'other'));
      if (!read) return;
      const written = JSON.parse(input.toString('utf8')) as WrittenEvent;
      const [message] = unframed(read);
      assert.equal(read.length, FRAME_HEADER_BYTES + message.length);
      const decoded = decodeEvent(message);
      assert.equal(decoded.id, written.id ?? '');
      assert.equal(decoded.topic, written.topic || 'other');
      assert.equal(decoded.body, written.body ?? '');
      assert.equal(decoded.cursor, '');
      assert.deepEqual(
        new Map(Object.entries(decoded.attributes ?? {})),
        new Map(Object.entries(written.attributes ?? {})),
      );
      if (written.at == null) assert.equal(decoded.at ?? null, null);
      else assert.equal(decoded.at?.seconds, Math.floor(millisecondsOf(written.at) / 1000));
    },
  },
  {
    name: 'time',
    seeds: text(
      '2026-01-31T09:00:00Z',
      '2024-02-29t23:59:59.123456789-23:59',
      '0001-01-01T00:00:00Z',
      '9999-12-31T23:59:59.999999999z',
    ),
    words: text('+00:00', '-24:00', '.5', '02-30', '24:00:00', ':60'),
    run(input) {
      const written = input.toString('latin1');
      const time = parseTime(written);
      if (!time) return;
      assert.ok(time.nanos >= 0 && time.nanos <= 999_999_999);
      const formatted = formatTime(time);
      assert.deepEqual(parseTime(formatted), time);
      const milliseconds = time.seconds * 1000 + Math.floor(time.nanos / 1e6);
      assert.equal(milliseconds, millisecondsOf(written), `${written} is ${formatted}`);
    },
  },
  {
    name: 'lines',
    seeds: [
      Buffer.from('\x03{"topic":"t"}\n{"topic":"u"}\r\n'),
      Buffer.from('\x01\n\n\r\na\rb'),
      Buffer.from('\xff0123456789012345678901234567890123456789\n', 'latin1'),
    ],
    words: text('\n', '\r\n', '\r'),
    run(input) {
      const most = 32;
      const cut = input[0] ?? 0;
      const bytes = input.subarray(1);
      const cutInto = (isWhole: boolean, ...chunks: readonly Buffer[]) =>
        accepted(BadMessageError, () => {
          const lines = new Lines(most, isWhole);
          const found = chunks.flatMap((chunk) => [...lines.push(chunk)].map(hex));
          const last = lines.end();
          return last ? [...found, hex(last)] : found;
        });
      const expected = bytes.toString('latin1').split('\n');
      if (expected.at(-1) === '') expected.pop();
      const isRefused = expected.some((line) => line.length > most);
      const wanted = expected.map((line) => hex(Buffer.from(line.replace(/\r$/, ''), 'latin1')));
      for (const chunks of [
        [bytes],
        [bytes.subarray(0, cut), bytes.subarray(cut)],
        eachByte(bytes),
      ])
        assert.deepEqual(cutInto(false, ...chunks), isRefused ? undefined : wanted);
      // A body that is one event is one line, also where it is empty.
      const all = bytes.length > most ? undefined : [hex(bytes)];
      assert.deepEqual(cutInto(true, ...eachByte(bytes)), all);
    },
  },
  {
    name: 'received-frames',
    seeds: [
      Buffer.concat([Buffer.from([4]), framed(event, event)]),
      Buffer.concat([Buffer.from([0]), frame(event)]),
    ],
    run(input) {
      const cut = 1 + (input[0] ?? 0);
      const bytes = input.subarray(1);
      const split = (...chunks: readonly Buffer[]) =>
        accepted(FeedError, () => {
          const splitter = new MessageSplitter(1_000);
          return chunks.flatMap((chunk) => splitter.push(chunk)).map((one) => one.toString('hex'));
        });
      const whole = split(bytes);
      const inTwo = split(bytes.subarray(0, cut), bytes.subarray(cut));
      assert.deepEqual(inTwo, whole);
    },
  },
];

function streamMessages(): Buffer[] {
  const head = { commit: Buffer.from('12345678'), storedAt: 1, before: 0, allIds: 1 };
  const run = {
    topic: 't',
    first: 7 * 2048,
    last: 7 * 2048,
    count: 1,
    bytes: framed(event),
    storedAt: 1,
  };
  return [
    encodeRun({
      run,
      ids: new Uint32Array([1, 2]),
      previous: 0,
      total: 1,
      totalBytes: 20,
      ...head,
    }),
    encodeRun({ run, ids: new Uint32Array(0), previous: 0, total: 1, totalBytes: 20, ...head }),
    encodeEpochs({ starts: [{ epoch: 'abcdef', after: 0 }], lag: 0, ...head }),
  ];
}
