import { randomUUID } from 'node:crypto';
import { ATTRIBUTES_FIELD, AttributesChecker } from './attributes.js';
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

/**
 * Checked events of one topic that fit in one run. They are framed as they will be stored; each ends in a cursor
 * field whose characters are not written yet.
 */
export interface TopicEvents {
  readonly topic: string;
  readonly count: number;
  readonly bytes: Buffer;
  /** Two numbers for each event: the high and the low half of its IdHash. Both are 0 where the server made the id. */
  readonly ids: Uint32Array;
}

/** Checked events of one upload, grouped by topic and run. The events of a topic keep their order. */
export interface CheckedEvents {
  readonly topics: readonly TopicEvents[];
  readonly count: number;
  /** The total size of the groups' bytes. */
  readonly bytes: number;
  /** The index in `topics` of the group whose last event came last of all. -1 if there are no events. */
  readonly lastTopic: number;
}

/** Describes the first invalid event. That event and all events after it were refused. */
export interface EventProblem {
  /** The index of the event in its upload, from 0. */
  readonly index: number;
  readonly problem: string;
  /** The event's topic, if the event is valid and its topic is what the upload may not use. */
  readonly forbiddenTopic?: string;
}

const ID = 1;
const TOPIC = 2;
const AT = 4;
/** check() makes at most this many groups, because an engine stores no more runs at once. */
export const MAX_GROUPS = 1_000;
const NAMES = ['', 'id', 'topic', 'body', 'at', 'cursor'];
const NOTHING: Buffer = Buffer.alloc(0);
const NO_IDS = new Uint32Array(0);
/** The server's ids are UUIDs. As a field, an id has a tag and a length (2 bytes) in front of its characters. */
const UUID_BYTES = 36;
const ID_TAG = (ID << 3) | BYTES;
const ID_FIELD_BYTES = 2 + UUID_BYTES;
/** The field `at` takes 2 bytes for tag and length, and up to 16 for the time. */
const MAX_TIME_FIELD_BYTES = 2 + 16;
/** The most that the server adds to an event: a time, an id and a cursor. */
const MAX_ADDED_BYTES = MAX_TIME_FIELD_BYTES + ID_FIELD_BYTES + CURSOR_FIELD_BYTES;

// check() walks over the events twice. The first time it checks each event and notes what the second time needs to
// copy it. A note is NOTE_LENGTH numbers in `notes`; the constants say what they are: notes[note + START] is where
// the event starts. One array serves all uploads, because check() never waits.

/** The index in `sources` of the buffer that holds the event. */
const SOURCE = 0;
/** The encoded event is source[start, end), without its frame header. */
const START = 1;
const END = 2;
/** The index of the event's group. */
const GROUP = 3;
/** The halves of the event's IdHash. */
const HASH_HIGH = 4;
const HASH_LOW = 5;
/** The fields that the server adds: NEEDS_TIME, NEEDS_ID, both or 0. */
const NEEDS = 6;
const NEEDS_TIME = 1;
const NEEDS_ID = 2;
const NOTE_LENGTH = 7;
let notes = new Int32Array(NOTE_LENGTH * 1024);
const sources: Buffer[] = [];

/** The index of the newest group of each topic. Like `notes`, it serves all uploads. */
const newestGroups = new Map<string, number>();
/** The newest groups are compared by name before newestGroups is asked: most uploads have few topics, whose names then need no hash. */
const COMPARED_GROUPS = 8;

/** Collects events of one topic that go into one run. */
class Group implements TopicEvents {
  count = 0;
  /** The length that `bytes` will have. */
  size = 0;
  bytes = NOTHING;
  ids = NO_IDS;
  /** The events written so far end here in `bytes`. */
  private end = 0;
  private writtenIds = 0;

  constructor(readonly topic: string) {}

  /** Call it when `count` and `size` are final, before the first write(). */
  allocate(): void {
    this.bytes = allocate(this.size);
    this.ids = new Uint32Array(2 * this.count);
  }

  /**
   * Writes the next event of the group.
   *
   * @param note the index of the event's note in `notes`
   * @param time the encoded field `at` for an event that came without one
   */
  write(note: number, time: Buffer): void {
    this.ids[this.writtenIds++] = notes[note + HASH_HIGH];
    this.ids[this.writtenIds++] = notes[note + HASH_LOW];
    this.end = writeEvent(
      this.bytes,
      this.end,
      sources[notes[note + SOURCE]],
      notes[note + START],
      notes[note + END],
      notes[note + NEEDS] & NEEDS_TIME ? time : NOTHING,
      (notes[note + NEEDS] & NEEDS_ID) !== 0,
    );
  }
}

/**
 * Checks the events of one upload, and makes the bytes that the log stores and watches send. It walks over each
 * event's fields once, without decoding them, and copies each event once.
 */
export class EventChecker {
  /** The number of events accepted so far. */
  count = 0;
  problem: EventProblem | undefined;
  /** True if the upload goes on after its `maxEvents` events. */
  isFull = false;
  /** The frames that the last check() left for the next one, because its events had MAX_GROUPS groups; else undefined. */
  rest: ReceivedFrames | undefined;

  private readonly fields = new FieldReader();
  private readonly timestamp = new FieldReader();
  private readonly attributes = new AttributesChecker();
  /** The topic of the last valid event, encoded and decoded. The next event nearly always has the same one. */
  private topicBytes = Buffer.alloc(0);
  private topic = '';
  private readonly topicHash = new IdHash();
  private readonly hash = new IdHash();
  /** The field `at` for events without a time. All events of one check() get the same one. */
  private time = NOTHING;

  // checkEvent() sets these fields for note().
  /** Bit n is set if the event has field n. */
  private seen = 0;
  private idStart = 0;
  private idEnd = 0;
  private topicStart = 0;
  private topicEnd = 0;
  /** The event has a cursor or an empty id, so it can't be copied as it is. */
  private rebuild = false;
  private lacksTime = false;
  private lacksId = false;

  /** The topic that `mayUse` has refused, once it has. */
  private forbiddenTopic: string | undefined;

  /** An event of so many bytes is not over the limit, whatever the server adds to it. */
  private readonly smallBytes: number;

  /**
   * @param maxEvents the most events that this upload may have
   * @param mayUse says whether the upload may use a topic; asked when an event has another topic than the one before it
   * @param maxBytes the most that an event may take as it is stored, without its cursor
   */
  constructor(
    private readonly maxEvents = Infinity,
    private readonly mayUse: (topic: string) => boolean = () => true,
    private readonly maxBytes = Infinity,
  ) {
    this.smallBytes = maxBytes - MAX_TIME_FIELD_BYTES - ID_FIELD_BYTES;
  }

  /**
   * Accepts events up to the first invalid one, which `problem` then describes, or until `maxEvents` events of the
   * upload are accepted, or until there are MAX_GROUPS groups; `rest` then has what it did not look at. Returns those
   * that it accepted.
   */
  check(received: ReceivedFrames): CheckedEvents {
    const groups: Group[] = [];
    let group = -1;
    let count = 0;
    sources.length = 0;
    newestGroups.clear();
    this.time = NOTHING;
    this.rest = undefined;

    pieces: for (const [index, piece] of received.pieces.entries()) {
      const source = sources.push(piece) - 1;
      for (let at = 0; at < piece.length;) {
        const start = at + FRAME_HEADER_BYTES;
        const end = start + frameLength(piece, at);
        at = end;

        if (this.count + count === this.maxEvents) {
          this.isFull = true;
          break pieces;
        }
        let problem = this.checkEvent(piece, start, end);
        if (end - start > this.smallBytes) problem ??= this.sizeProblem(piece, start, end);
        if (problem !== undefined) {
          const { forbiddenTopic } = this;
          this.problem = { index: this.count + count, problem, forbiddenTopic };
          break pieces;
        }
        // The event may become smaller, because a producer's cursor is dropped, but never larger than this.
        const most = FRAME_HEADER_BYTES + (end - start) + MAX_ADDED_BYTES;
        const previous = group;
        if (group < 0 || groups[group].topic !== this.topic) group = lastOf(groups, this.topic);
        if (group < 0 || (groups[group].count > 0 && groups[group].size + most > RUN_BYTES)) {
          if (groups.length === MAX_GROUPS) {
            group = previous;
            const left = piece.subarray(start - FRAME_HEADER_BYTES);
            this.rest = { pieces: [left, ...received.pieces.slice(index + 1)] };
            break pieces;
          }
          group = groups.push(new Group(this.topic)) - 1;
          newestGroups.set(this.topic, group);
        }
        groups[group].count++;
        groups[group].size += this.note(NOTE_LENGTH * count++, group, source, start, end);
      }
    }

    let bytes = 0;
    for (const each of groups) {
      each.allocate();
      bytes += each.size;
    }
    for (let note = 0; note < NOTE_LENGTH * count; note += NOTE_LENGTH)
      groups[notes[note + GROUP]].write(note, this.time);
    sources.length = 0;
    newestGroups.clear();
    this.count += count;
    return { topics: groups, count, bytes, lastTopic: group };
  }

  /** Notes how write() has to write the event that checkEvent() has checked. Returns the size of its frame then. */
  private note(note: number, group: number, source: number, start: number, end: number): number {
    if (note + NOTE_LENGTH > notes.length) notes = grown(notes);
    const piece = sources[source];
    if (this.rebuild) {
      const rebuilt = this.rebuilt(piece, start, end);
      source = sources.push(rebuilt) - 1;
      start = 0;
      end = rebuilt.length;
    }
    this.hashId(piece);
    notes[note + SOURCE] = source;
    notes[note + START] = start;
    notes[note + END] = end;
    notes[note + GROUP] = group;
    notes[note + HASH_HIGH] = this.hash.high;
    notes[note + HASH_LOW] = this.hash.low;
    let size = FRAME_HEADER_BYTES + (end - start) + CURSOR_FIELD_BYTES;
    let needs = 0;
    if (this.lacksTime) {
      needs |= NEEDS_TIME;
      size += this.timeField().length;
    }
    if (this.lacksId) {
      needs |= NEEDS_ID;
      size += ID_FIELD_BYTES;
    }
    notes[note + NEEDS] = needs;
    return size;
  }

  private timeField(): Buffer {
    if (this.time === NOTHING) this.time = bytesField(AT, encodeTimestamp(Date.now()));
    return this.time;
  }

  /** Returns what is wrong with the size of the event that checkEvent() has checked, or undefined. */
  private sizeProblem(source: Buffer, start: number, end: number): string | undefined {
    let size = this.rebuild ? this.rebuilt(source, start, end).length : end - start;
    if (this.lacksTime) size += this.timeField().length;
    if (this.lacksId) size += ID_FIELD_BYTES;
    if (size <= this.maxBytes) return undefined;
    return `it has ${size} bytes as it is stored, over the limit of ${this.maxBytes} (FEED_MAX_EVENT_BYTES)`;
  }

  /**
   * Returns what is wrong with an event, or undefined if it is valid. Sets `topic` and the fields that note() reads.
   */
  private checkEvent(source: Buffer, start: number, end: number): string | undefined {
    const fields = this.fields;
    this.seen = 0;
    this.rebuild = false;
    this.idEnd = this.idStart = 0;
    fields.read(source, start, end);
    while (fields.next()) {
      const field = fields.field;
      if (field === ATTRIBUTES_FIELD) {
        const problem = this.attributesProblem(source);
        if (problem !== undefined) return problem;
        continue;
      }
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
          this.rebuild = true; // the producer's cursor is dropped
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
    // rebuilt() itself adds an id where there is none.
    this.lacksId = (this.seen & (1 << ID)) === 0 && !this.rebuild;
    this.lacksTime = (this.seen & (1 << AT)) === 0;
    return this.takeTopic(source);
  }

  /** Returns what is wrong with the event's topic, or undefined. Sets `topic` if it differs from the last event's. */
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
    if (!this.mayUse(topic)) {
      this.forbiddenTopic = topic;
      return 'topic: it may not be used';
    }
    this.topic = topic;
    this.topicBytes = Buffer.from(topic);
    this.topicHash.reset();
    this.topicHash.update(source, start, this.topicEnd);
    return undefined;
  }

  /** Computes the hash of the event's (topic, id). Both halves are 0 if the producer gave no id. */
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

  /** Returns what is wrong with the attribute that `fields` is at, or with all of the event up to it, or undefined. */
  private attributesProblem(source: Buffer): string | undefined {
    const { attributes, fields } = this;
    if (fields.type !== BYTES) return 'attributes has the wrong wire type';
    if ((this.seen & (1 << ATTRIBUTES_FIELD)) === 0) attributes.begin();
    this.seen |= 1 << ATTRIBUTES_FIELD;
    return attributes.problem(source, fields.start, fields.end);
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
      // Some decoders cut off a longer varint, others read a wrong number from it.
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

  /** Returns a copy of the event without its cursor, and with a new id if it had none. */
  private rebuilt(source: Buffer, start: number, end: number): Buffer {
    const fields = this.fields;
    const kept: Buffer[] = [];
    /** Where what is kept since the last field that is dropped begins. An event may have half a million fields that nobody knows. */
    let from = start;
    let hasId = false;
    fields.read(source, start, end);
    while (fields.next()) {
      const isEmptyId = fields.field === ID && fields.start === fields.end;
      if (fields.field === ID) hasId = !isEmptyId;
      if (fields.field !== CURSOR_FIELD && !isEmptyId) continue;
      kept.push(source.subarray(from, fields.tagStart));
      from = fields.end;
    }
    kept.push(source.subarray(from, end));
    if (!hasId) kept.unshift(bytesField(ID, Buffer.from(randomUUID())));
    return Buffer.concat(kept);
  }
}

/**
 * Writes the frame of source[start, end) at target[at], and appends the fields that the event lacks: first `time`
 * (empty: not lacking), then an id, last the cursor field. Returns the offset of the first byte after the frame.
 */
function writeEvent(
  target: Buffer,
  at: number,
  source: Buffer,
  start: number,
  end: number,
  time: Buffer,
  needsId: boolean,
): number {
  const idBytes = needsId ? ID_FIELD_BYTES : 0;
  writeFrameHeader(target, at, end - start + time.length + idBytes + CURSOR_FIELD_BYTES);
  at += FRAME_HEADER_BYTES;
  at += source.copy(target, at, start, end);
  if (time.length > 0) at += time.copy(target, at);
  if (needsId) {
    target[at++] = ID_TAG;
    target[at++] = UUID_BYTES;
    at += target.write(randomUUID(), at, 'latin1');
  }
  reserveCursor(target, at);
  return at + CURSOR_FIELD_BYTES;
}

/** Returns the index of the newest group of a topic, or -1 if there is none. */
function lastOf(groups: readonly Group[], topic: string): number {
  const compared = Math.max(0, groups.length - COMPARED_GROUPS);
  for (let i = groups.length - 1; i >= compared; i--) if (groups[i].topic === topic) return i;
  return compared === 0 ? -1 : (newestGroups.get(topic) ?? -1);
}

/** Returns a copy of the notes with room for twice as many. */
function grown(full: Int32Array): typeof notes {
  const larger = new Int32Array(2 * full.length);
  larger.set(full);
  return larger;
}
