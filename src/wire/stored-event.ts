import { ATTRIBUTES_FIELD } from './attributes.js';
import { CURSOR_FIELD } from './cursor.js';
import { AT, BODY, ID, TOPIC } from './event-fields.js';
import { FRAME_HEADER_BYTES, frameLength } from './frames.js';
import { FieldReader } from './protobuf.js';
import { formatTime } from './rfc3339.js';
import type { TextTarget } from './text-writer.js';

// The fields of an entry of a map, and those of a Timestamp.
const KEY = 1;
const VALUE = 2;
const SECONDS = 1;
const NANOS = 2;

/**
 * Reads events that this service has stored or made, one after another, and writes them in proto3's JSON. Fields that this version does
 * not know are left out. The event { id: 'a', topic: 'orders', body: 'hi' } at cursor 0000000001fc406w becomes
 *
 *     {"id":"a","topic":"orders","body":"hi","at":"2026-01-31T09:00:00Z","cursor":"0000000001fc406w"}
 */
export class StoredEvent {
  /** Where the frame of the event ends. */
  end = 0;
  private frames: Buffer = Buffer.alloc(0);
  private readonly fields = new FieldReader();
  private readonly inner = new FieldReader();
  /** Field n is frames[starts[n], ends[n]); both are 0 if it is not there. */
  private readonly starts = new Uint32Array(ATTRIBUTES_FIELD);
  private readonly ends = new Uint32Array(ATTRIBUTES_FIELD);
  /** Where the entries of the attributes start and end, one after another. */
  private readonly attributes: number[] = [];

  /** Moves to the event whose frame starts at `at`. */
  read(frames: Buffer, at: number): void {
    const { fields, starts, ends, attributes } = this;
    this.frames = frames;
    starts.fill(0);
    ends.fill(0);
    attributes.length = 0;
    const start = at + FRAME_HEADER_BYTES;
    this.end = start + frameLength(frames, at);
    fields.read(frames, start, this.end);
    while (fields.next()) {
      const { field } = fields;
      if (field === ATTRIBUTES_FIELD) {
        attributes.push(fields.start, fields.end);
      } else if (field < ATTRIBUTES_FIELD) {
        starts[field] = fields.start;
        ends[field] = fields.end;
      }
    }
  }

  /** True if it has no id: then it is no event, but a sign of life. */
  get isHeartbeat(): boolean {
    return this.starts[ID] === this.ends[ID];
  }

  writeCursor(out: TextTarget): void {
    out.bytes(this.frames, this.starts[CURSOR_FIELD], this.ends[CURSOR_FIELD]);
  }

  /** Writes the event in one line, without the line's end. */
  writeJson(out: TextTarget): void {
    if (this.isHeartbeat) {
      out.ascii('{"topic":');
      this.writeText(out, TOPIC);
    } else {
      out.ascii('{"id":');
      this.writeText(out, ID);
      out.ascii(',"topic":');
      this.writeText(out, TOPIC);
      out.ascii(',"body":');
      this.writeText(out, BODY);
      out.ascii(`,"at":"${this.time}"`);
    }
    out.ascii(',"cursor":"');
    this.writeCursor(out);
    out.ascii('"');
    if (this.attributes.length > 0) this.writeAttributes(out);
    out.ascii('}');
  }

  private writeText(out: TextTarget, field: number): void {
    out.quoted(this.frames, this.starts[field], this.ends[field]);
  }

  private get time(): string {
    const { inner } = this;
    let seconds = 0;
    let nanos = 0;
    inner.read(this.frames, this.starts[AT], this.ends[AT]);
    while (inner.next()) {
      if (inner.field === SECONDS) seconds = inner.varint();
      else if (inner.field === NANOS) nanos = inner.int32();
    }
    return formatTime({ seconds, nanos });
  }

  private writeAttributes(out: TextTarget): void {
    out.ascii(',"attributes":{');
    for (let i = 0; i < this.attributes.length; i += 2) {
      if (i > 0) out.ascii(',');
      this.writeAttribute(out, this.attributes[i], this.attributes[i + 1]);
    }
    out.ascii('}');
  }

  private writeAttribute(out: TextTarget, start: number, end: number): void {
    const { inner, frames } = this;
    const at = [0, 0, 0, 0];
    inner.read(frames, start, end);
    while (inner.next()) {
      if (inner.field !== KEY && inner.field !== VALUE) continue;
      const first = 2 * (inner.field - KEY);
      at[first] = inner.start;
      at[first + 1] = inner.end;
    }
    out.quoted(frames, at[0], at[1]);
    out.ascii(':');
    out.quoted(frames, at[2], at[3]);
  }
}
