import { type Epoch, MAX_POSITION, type Position } from '../../wire/cursor.js';
import { SetupError } from '../../nats/setup-error.js';
import type { EpochStart } from '../epochs.js';
import type { StoredRun } from '../stored-run.js';

/**
 * A message of the stream is one run of a topic, or a record of the log's epochs. Its data is a head and then the rest:
 *
 *     offset  size
 *          0     1  format: 1
 *          1     1  kind: 0 a run, 1 the epochs
 *          2     2  events of the run; 0: the marker of a removal of the topic, which was done or begun
 *          4     8  commit: random, the same in all messages of one commit
 *         12     8  stored at, milliseconds of the log's time
 *         20     8  position of the topic's event before this run; 0: there is none
 *         28     8  events of the topic so far, with this run
 *         36     8  bytes of the topic's events so far, with this run
 *         44     8  position of the log's event before this message; 0: there is none
 *         52     8  events of the log with an id that deduplication remembers, so far
 *         60     4  ids that follow: 0, or as many as events
 *
 * Then come the ids (8 bytes each: the high and the low half of an IdHash) and the framed events; or, for epochs, their
 * starts as JSON. Epochs have the lag of the log's clock at 20 (LogClock.lag(); 0 in those of earlier versions). Numbers are
 * little-endian, those of 8 bytes are doubles, but for `commit`.
 */
const FORMAT = 1;
const RUN = 0;
const EPOCHS = 1;
const HEAD_BYTES = 64;
const COMMIT = 4;
const COMMIT_BYTES = 8;

/**
 * Positions of one message. A run of RUN_BYTES has fewer events than this: the smallest takes more than 16 bytes. The
 * event with the index 3 of the run at sequence 10 has the position 10 * 2048 + 3 = 20483.
 */
export const POSITIONS = 2048;

/** Returns the sequence of the message that holds a position. */
export const sequenceOf = (position: Position): number => Math.floor(position / POSITIONS);
/** Returns the position of the first event of a message. */
export const firstOf = (sequence: number): Position => sequence * POSITIONS;
/**
 * Returns the last position that a message could have. No event has it, so it stands for "some event up to this message",
 * where nobody knows which one.
 */
export const endOf = (sequence: number): Position => (sequence + 1) * POSITIONS - 1;
/** Returns true for a position that endOf() made. */
export const isEnd = (position: Position): boolean => position % POSITIONS === POSITIONS - 1;

/**
 * Returns a run of no events, which marks a removal of its topic. It stands right behind the topic's newest event, `last`, so that
 * the next run follows it as it would follow that. Where the removal has left nothing else, it says where the topic's floor is. Events
 * that came while the topic was removed are kept before it.
 */
export const markerOf = (topic: string, last: Position, storedAt: number): StoredRun => ({
  topic,
  first: last + 1,
  last,
  count: 0,
  bytes: Buffer.alloc(0),
  storedAt,
});

/** The head of each message: figures of the log and of the message's topic. */
export interface Head {
  readonly commit: Buffer;
  readonly storedAt: number;
  readonly before: Position;
  readonly allIds: number;
}

/** A run of the stream, with the state of its topic after it. */
export interface RunMessage extends Head {
  readonly kind: 'run';
  readonly sequence: number;
  readonly run: StoredRun;
  readonly ids: Uint32Array;
  readonly previous: Position;
  readonly total: number;
  readonly totalBytes: number;
}

/** A record of all epochs until now. */
export interface EpochsMessage extends Head {
  readonly kind: 'epochs';
  readonly sequence: number;
  readonly starts: readonly EpochStart[];
  /** LogClock.lag() of all replicas until now. */
  readonly lag: number;
}

export type Message = RunMessage | EpochsMessage;

const REMOVE = 'remove it from the stream (`nats stream rmm`)';

/** The message can't be read: another version of Feed wrote it, or somebody else. */
export class FormatError extends SetupError {}

export function encodeRun({
  run,
  ids,
  ...rest
}: Omit<RunMessage, 'kind' | 'sequence'>): Buffer<ArrayBuffer> {
  const idBytes = ids.length * 4;
  const data = Buffer.allocUnsafe(HEAD_BYTES + idBytes + run.bytes.length);
  writeHead(data, RUN, rest);
  data.writeUInt16LE(run.count, 2);
  data.writeDoubleLE(rest.previous, 20);
  data.writeDoubleLE(rest.total, 28);
  data.writeDoubleLE(rest.totalBytes, 36);
  data.writeUInt32LE(ids.length / 2, 60);
  for (let i = 0; i < ids.length; i++) data.writeUInt32LE(ids[i], HEAD_BYTES + 4 * i);
  run.bytes.copy(data, HEAD_BYTES + idBytes);
  return data;
}

export function encodeEpochs({
  starts,
  lag,
  ...head
}: Omit<EpochsMessage, 'kind' | 'sequence'>): Buffer<ArrayBuffer> {
  const json = Buffer.from(JSON.stringify(starts.map(({ epoch, after }) => [epoch, after])));
  const data = Buffer.alloc(HEAD_BYTES + json.length);
  writeHead(data, EPOCHS, head);
  data.writeDoubleLE(lag, 20);
  json.copy(data, HEAD_BYTES);
  return data;
}

function writeHead(data: Buffer, kind: number, head: Head): void {
  data[0] = FORMAT;
  data[1] = kind;
  head.commit.copy(data, COMMIT);
  data.writeDoubleLE(head.storedAt, 12);
  data.writeDoubleLE(head.before, 44);
  data.writeDoubleLE(head.allIds, 52);
}

/** Returns the `commit` of a message's data, or less of it where somebody else's message is too short to have one. */
export const commitOf = (data: Buffer): Buffer => data.subarray(COMMIT, COMMIT + COMMIT_BYTES);

/**
 * Reads a message.
 *
 * @param data is kept by what is returned
 * @throws FormatError
 */
export function decode(sequence: number, topic: string, data: Buffer): Message {
  if (data.length < HEAD_BYTES || data[0] !== FORMAT || data[1] > EPOCHS) {
    throw new FormatError(
      `message ${sequence} of the stream has format ${data[0]}, which this version of Feed does not know: ` +
        `run the version that wrote it, or a later one; or, if somebody else has, ${REMOVE}`,
    );
  }
  const head: Head = {
    commit: commitOf(data),
    storedAt: data.readDoubleLE(12),
    before: data.readDoubleLE(44),
    allIds: data.readDoubleLE(52),
  };
  if (data[1] === EPOCHS)
    return {
      kind: 'epochs',
      sequence,
      starts: startsIn(data, sequence),
      lag: lagIn(data, sequence),
      ...head,
    };
  const count = data.readUInt16LE(2);
  const idCount = data.readUInt32LE(60);
  const previous = data.readDoubleLE(20);
  if (!isPosition(previous) || idCount > count || HEAD_BYTES + 8 * idCount > data.length)
    throw damaged(sequence);
  const ids = new Uint32Array(2 * idCount);
  for (let i = 0; i < ids.length; i++) ids[i] = data.readUInt32LE(HEAD_BYTES + 4 * i);
  const bytes = data.subarray(HEAD_BYTES + 4 * ids.length);
  const { storedAt } = head;
  const first = firstOf(sequence);
  const run =
    count === 0
      ? markerOf(topic, previous, storedAt)
      : { topic, first, last: first + count - 1, count, bytes, storedAt };
  return {
    kind: 'run',
    sequence,
    run,
    ids,
    previous,
    total: data.readDoubleLE(28),
    totalBytes: data.readDoubleLE(36),
    ...head,
  };
}

const isPosition = (value: number): boolean =>
  Number.isInteger(value) && value >= 0 && value <= MAX_POSITION;

function startsIn(data: Buffer, sequence: number): EpochStart[] {
  try {
    const pairs = JSON.parse(data.toString('utf8', HEAD_BYTES)) as [Epoch, Position][];
    return pairs.map(([epoch, after]) => ({ epoch, after }));
  } catch {
    throw damaged(sequence);
  }
}

function lagIn(data: Buffer, sequence: number): number {
  const lag = data.readDoubleLE(20);
  if (!(lag >= 0 && lag < Infinity)) throw damaged(sequence);
  return lag;
}

const damaged = (sequence: number): FormatError =>
  new FormatError(
    `message ${sequence} of the stream is damaged, or was not written by Feed: ${REMOVE}`,
  );

/** Returns the position of the log's newest event once a message is stored. */
export const headAfter = (message: Message): Position =>
  message.kind === 'run' && message.run.count > 0 ? message.run.last : message.before;
