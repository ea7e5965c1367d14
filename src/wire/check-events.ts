import { randomUUID } from 'node:crypto';
import { CURSOR_FIELD, CURSOR_FIELD_BYTES, reserveCursor } from './cursor.js';
import {
  FRAME_HEADER_BYTES,
  frameLength,
  writeFrameHeader,
  type ReceivedFrames,
} from './frames.js';
import { IdHash } from './id-hash.js';
import { RUN_BYTES } from './event-batch.js';
import { BYTES, bytesField, FieldReader, VARINT } from './protobuf.js';
import { allocate } from './slab.js';
import { encodeTimestamp, MAX_NANOS, MAX_SECONDS, MIN_SECONDS } from './timestamp.js';
import { topicProblem } from './topic.js';
import { isValidUtf8 } from './utf8.js';

/** Checked events of one topic, framed as they will be stored, each with room for its cursor: what fits in a run. */
export interface TopicEvents {
  readonly topic: string;
  readonly count: number;
  readonly bytes: Buffer;
  /** The hash of each event's (topic, id), in two halves; 0 and 0 where the server made the id. */
  readonly ids: Uint32Array;
}

/** Checked events as they came in on one stream, grouped by topic and run, in order within each topic. */
export interface CheckedEvents {
  readonly topics: readonly TopicEvents[];
  readonly count: number;
  readonly bytes: number;
  /** Which of `topics` the last event is in (as the last one there). */
  readonly lastTopic: number;
}

/** The first event that is not what it must be: nothing from it on was taken. */
export interface EventProblem {
  /** Counts the stream's events from 0. */
  readonly index: number;
  readonly problem: string;
}

const ID = 1;
const TOPIC = 2;
const AT = 4;
const NAMES = ['', 'id', 'topic', 'body', 'at', 'cursor'];
const NOTHING: Buffer = Buffer.alloc(0);
const NO_IDS = new Uint32Array(0);
/** An id that the server makes, as a field: tag, length, and the characters of a UUID. */
const UUID_BYTES = 36;
const ID_TAG = (ID << 3) | BYTES;
/** What an event gets at the most: a time, an id, a cursor. */
const ADDED_BYTES = 18 + 2 + UUID_BYTES + CURSOR_FIELD_BYTES;
const GETS_TIME = 1;
const GETS_ID = 2;

// What check() notes of each event between its two passes; one array serves all, because check() never
// waits. Of each event: which source, start, end, which topic, the hash of its id, and what it gets.
const SPAN = 7;
let spans = new Int32Array(SPAN * 1024);
const sources: Buffer[] = [];

/** Events of one topic that go into one run, as they are gathered. */
class Group implements TopicEvents {
  count = 0;
  /** What `bytes` will take. */
  size = 0;
  bytes = NOTHING;
  ids = NO_IDS;
  private end = 0;
  private written = 0;

  constructor(readonly topic: string) {}

  /** To be called once the size is known, and before write(). */
  allocate(): void {
    this.bytes = allocate(this.size);
    this.ids = new Uint32Array(2 * this.count);
  }

  /** Writes the next event, of which spans has a note from `span` on. */
  write(span: number, time: Buffer): void {
    this.ids[this.written++] = spans[span + 4];
    this.ids[this.written++] = spans[span + 5];
    this.end = writeEvent(
      this.bytes,
      this.end,
      sources[spans[span]],
      spans[span + 1],
      spans[span + 2],
      spans[span + 6] & GETS_TIME ? time : NOTHING,
      (spans[span + 6] & GETS_ID) !== 0,
    );
  }
}

/**
 * Checks the events of one upload and makes the bytes that are stored and sent: one pass over each
 * event's fields without decoding it, one copy.
 */
export class EventChecker {
  /** Events taken so far. */
  count = 0;
  problem: EventProblem | undefined;
  /** More events came than were to be taken. */
  isFull = false;

  private readonly fields = new FieldReader();
  private readonly timestamp = new FieldReader();
  /** The last valid topic: the next event's is nearly always the same. */
  private topicBytes = Buffer.alloc(0);
  private topic = '';
  private readonly topicHash = new IdHash();
  private readonly hash = new IdHash();
  /** What events without a time get: all that come at once the same. */
  private time = NOTHING;

  // Of the event in hand:
  private seen = 0;
  private idStart = 0;
  private idEnd = 0;
  private topicStart = 0;
  private topicEnd = 0;
  private rebuild = false;
  private lacksTime = false;
  private lacksId = false;

  constructor(private readonly maxEvents = Infinity) {}

  /** Takes events up to the first bad one, which it notes in `problem`, or up to the last it may take. */
  check(received: ReceivedFrames): CheckedEvents {
    const groups: Group[] = [];
    let group = -1;
    let count = 0;
    sources.length = 0;
    this.time = NOTHING;

    pieces: for (const piece of received.pieces) {
      const source = sources.push(piece) - 1;
      for (let at = 0; at < piece.length;) {
        const start = at + FRAME_HEADER_BYTES;
        const end = start + frameLength(piece, at);
        at = end;

        if (this.count + count === this.maxEvents) {
          this.isFull = true;
          break pieces;
        }
        const problem = this.checkEvent(piece, start, end);
        if (problem !== undefined) {
          this.problem = { index: this.count + count, problem };
          break pieces;
        }
        // More than it will be, if it has a cursor.
        const most = FRAME_HEADER_BYTES + (end - start) + ADDED_BYTES;
        if (group < 0 || groups[group].topic !== this.topic) group = lastOf(groups, this.topic);
        if (group < 0 || (groups[group].count > 0 && groups[group].size + most > RUN_BYTES))
          group = groups.push(new Group(this.topic)) - 1;
        groups[group].count++;
        groups[group].size += this.note(SPAN * count++, group, source, start, end);
      }
    }

    let bytes = 0;
    for (const each of groups) {
      each.allocate();
      bytes += each.size;
    }
    for (let span = 0; span < SPAN * count; span += SPAN)
      groups[spans[span + 3]].write(span, this.time);
    sources.length = 0;
    this.count += count;
    return { topics: groups, count, bytes, lastTopic: group };
  }

  /** Notes in spans what write() will need of the event in hand; returns what that will take. */
  private note(span: number, group: number, source: number, start: number, end: number): number {
    if (span + SPAN > spans.length) spans = grown(spans);
    const piece = sources[source];
    if (this.rebuild) {
      const rebuilt = this.rebuilt(piece, start, end);
      source = sources.push(rebuilt) - 1;
      start = 0;
      end = rebuilt.length;
    }
    this.hashId(piece);
    spans[span] = source;
    spans[span + 1] = start;
    spans[span + 2] = end;
    spans[span + 3] = group;
    spans[span + 4] = this.hash.high;
    spans[span + 5] = this.hash.low;
    let size = FRAME_HEADER_BYTES + (end - start) + CURSOR_FIELD_BYTES;
    let gets = 0;
    if (this.lacksTime) {
      if (this.time === NOTHING) this.time = bytesField(AT, encodeTimestamp(Date.now()));
      gets |= GETS_TIME;
      size += this.time.length;
    }
    if (this.lacksId) {
      gets |= GETS_ID;
      size += 2 + UUID_BYTES;
    }
    spans[span + 6] = gets;
    return size;
  }

  /** Returns what is wrong with the event; otherwise sets `topic` and what it needs. */
  private checkEvent(source: Buffer, start: number, end: number): string | undefined {
    const fields = this.fields;
    this.seen = 0;
    this.rebuild = false;
    this.idEnd = this.idStart = 0;
    fields.read(source, start, end);
    while (fields.next()) {
      const field = fields.field;
      if (field > CURSOR_FIELD) continue; // unknown fields are kept
      if (fields.type !== BYTES) return `${NAMES[field]} has the wrong wire type`;
      const bit = 1 << field;
      if (this.seen & bit) return `${NAMES[field]} is there twice`;
      this.seen |= bit;
      switch (field) {
        case TOPIC:
          this.topicStart = fields.start;
          this.topicEnd = fields.end;
          break;
        case AT: {
          const problem = this.timestampProblem(source, fields.start, fields.end);
          if (problem !== undefined) return problem;
          break;
        }
        case CURSOR_FIELD:
          this.rebuild = true; // the producer's is dropped
          break;
        default: // id or body
          if (!isValidUtf8(source, fields.start, fields.end))
            return `${NAMES[field]} is not valid UTF-8`;
          if (field === ID) {
            this.idStart = fields.start;
            this.idEnd = fields.end;
            if (fields.start === fields.end) this.rebuild = true;
          }
      }
    }
    if (fields.problem !== undefined) return `it is not well-formed protobuf: ${fields.problem}`;
    // A rebuilt one has got an id.
    this.lacksId = (this.seen & (1 << ID)) === 0 && !this.rebuild;
    this.lacksTime = (this.seen & (1 << AT)) === 0;
    return this.takeTopic(source);
  }

  private takeTopic(source: Buffer): string | undefined {
    if ((this.seen & (1 << TOPIC)) === 0) return 'topic is missing';
    const start = this.topicStart;
    const length = this.topicEnd - start;
    const known = this.topicBytes;
    let i = 0;
    if (length === known.length) while (i < length && source[start + i] === known[i]) i++;
    return i === length && length > 0 ? undefined : this.takeOtherTopic(source);
  }

  private takeOtherTopic(source: Buffer): string | undefined {
    const start = this.topicStart;
    if (!isValidUtf8(source, start, this.topicEnd)) return 'topic is not valid UTF-8';
    const topic = source.toString('utf8', start, this.topicEnd);
    const problem = topicProblem(topic);
    if (problem !== undefined) return `topic: ${problem}`;
    this.topic = topic;
    this.topicBytes = Buffer.from(topic);
    this.topicHash.reset();
    this.topicHash.update(source, start, this.topicEnd);
    return undefined;
  }

  /** The hash of the event's (topic, id); 0 where it has no id of its own. */
  private hashId(source: Buffer): void {
    const { hash } = this;
    if (this.idStart === this.idEnd) {
      hash.high = hash.low = 0;
      return;
    }
    hash.start(this.topicHash);
    hash.update(source, this.idStart, this.idEnd);
    hash.finish();
  }

  private timestampProblem(source: Buffer, start: number, end: number): string | undefined {
    const fields = this.timestamp;
    let seen = 0;
    fields.read(source, start, end);
    while (fields.next()) {
      if (fields.field > 2) continue;
      if (fields.type !== VARINT) return 'at has a field of the wrong wire type';
      if (seen & (1 << fields.field)) return 'at has a field twice';
      seen |= 1 << fields.field;
      // A longer int32 is cut off by some readers and misread by others.
      if (fields.field === 2 && fields.end - fields.start > 5)
        return 'at is out of the range of a Timestamp';
      const value = fields.varint();
      const inRange =
        fields.field === 1
          ? value >= MIN_SECONDS && value <= MAX_SECONDS
          : value >= 0 && value <= MAX_NANOS;
      if (!inRange) return 'at is out of the range of a Timestamp';
    }
    return fields.problem === undefined ? undefined : `at is not well-formed: ${fields.problem}`;
  }

  /** The event without its cursor, with an id where it had none. */
  private rebuilt(source: Buffer, start: number, end: number): Buffer {
    const fields = this.fields;
    const kept: Buffer[] = [];
    let hasId = false;
    fields.read(source, start, end);
    while (fields.next()) {
      if (fields.field === CURSOR_FIELD) continue;
      if (fields.field === ID) {
        if (fields.start === fields.end) continue;
        hasId = true;
      }
      kept.push(source.subarray(fields.tagStart, fields.end));
    }
    if (!hasId) kept.unshift(bytesField(ID, Buffer.from(randomUUID())));
    return Buffer.concat(kept);
  }
}

function writeEvent(
  target: Buffer,
  at: number,
  source: Buffer,
  start: number,
  end: number,
  time: Buffer,
  getsId: boolean,
): number {
  const idBytes = getsId ? 2 + UUID_BYTES : 0;
  writeFrameHeader(target, at, end - start + time.length + idBytes + CURSOR_FIELD_BYTES);
  at += FRAME_HEADER_BYTES;
  at += source.copy(target, at, start, end);
  if (time.length > 0) at += time.copy(target, at);
  if (getsId) {
    target[at++] = ID_TAG;
    target[at++] = UUID_BYTES;
    at += target.write(randomUUID(), at, 'latin1');
  }
  reserveCursor(target, at);
  return at + CURSOR_FIELD_BYTES;
}

function lastOf(groups: readonly Group[], topic: string): number {
  let i = groups.length - 1;
  while (i >= 0 && groups[i].topic !== topic) i--;
  return i;
}

function grown(full: Int32Array): typeof spans {
  const wider = new Int32Array(2 * full.length);
  wider.set(full);
  return wider;
}
