import { createHash } from 'node:crypto';

// A backup of a log is a file of four parts:
//
//     feed backup 1\n
//     {"bytes":1048576,"at":"2026-11-28T20:00:00.000Z","head":"00000000z8k3x9qz"}\n
//     as many bytes of the LMDB file
//     the SHA-256 of all that, 32 bytes
const MAGIC = Buffer.from('feed backup 1\n');
const ANY_MAGIC = 'feed backup ';
const DIGEST_BYTES = 32;
/** The second line is not longer. */
const MAX_HEADER_BYTES = 4_096;

/** What a backup says about itself. */
export interface BackupHeader {
  /** The size of the LMDB file in it. */
  readonly bytes: number;
  /** When it was made, as RFC 3339 has it. */
  readonly at: string;
  /** The cursor of the newest event in it. */
  readonly head: string;
}

/** A file is no backup, or not a whole one. */
export class BackupError extends Error {}

/** Returns the first bytes of a backup. */
export function encodeHeader(header: BackupHeader): Buffer {
  return Buffer.concat([MAGIC, Buffer.from(`${JSON.stringify(header)}\n`)]);
}

/** Returns the size of a whole backup, in bytes. */
export function backupBytes(header: BackupHeader): number {
  return encodeHeader(header).length + header.bytes + DIGEST_BYTES;
}

/** Yields a backup: its header, the bytes of the LMDB file as they come, and the digest. */
export async function* encodeBackup(
  header: BackupHeader,
  file: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  const first = encodeHeader(header);
  hash.update(first);
  yield first;
  for await (const bytes of file) {
    hash.update(bytes);
    yield bytes;
  }
  yield hash.digest();
}

/**
 * Reads a backup. The bytes of its file are to be read to their end, which throws unless they are the ones that were backed up.
 *
 * @throws BackupError
 */
export async function decodeBackup(
  backup: AsyncIterable<Buffer>,
): Promise<{ header: BackupHeader; file: AsyncGenerator<Buffer> }> {
  const chunks = backup[Symbol.asyncIterator]();
  let start = Buffer.alloc(0);
  let end = -1;
  while (end < 0) {
    const { done, value } = await chunks.next();
    if (!done) start = Buffer.concat([start, value]);
    const isStart = start.subarray(0, MAGIC.length).equals(MAGIC.subarray(0, start.length));
    end = start.indexOf('\n', MAGIC.length);
    if (!isStart || (end < 0 && (done || start.length > MAX_HEADER_BYTES))) throw noBackup(start);
  }
  const header = readHeader(start.subarray(MAGIC.length, end));
  return { header, file: fileIn(header, start, end + 1, chunks) };
}

async function* fileIn(
  { bytes }: BackupHeader,
  start: Buffer,
  headerBytes: number,
  chunks: AsyncIterator<Buffer>,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256').update(start.subarray(0, headerBytes));
  let left = bytes;
  let rest: Buffer = start.subarray(headerBytes);
  let found: Buffer = Buffer.alloc(0);
  for (;;) {
    const own = rest.subarray(0, left);
    if (own.length > 0) {
      hash.update(own);
      left -= own.length;
      yield own;
    }
    found = Buffer.concat([found, rest.subarray(own.length)]);
    // At once, because what follows may be more than fits in memory.
    if (found.length > DIGEST_BYTES)
      throw new BackupError('it has changed since it was made: more follows its end');
    const { done, value } = await chunks.next();
    if (done) break;
    rest = value;
  }
  if (left > 0 || found.length < DIGEST_BYTES)
    throw new BackupError('it is cut short: its end is missing');
  if (!found.equals(hash.digest()))
    throw new BackupError('it has changed since it was made: its SHA-256 is another one');
}

function readHeader(line: Buffer): BackupHeader {
  try {
    const header = JSON.parse(line.toString()) as BackupHeader;
    if (Number.isSafeInteger(header.bytes) && header.bytes > 0) return header;
  } catch {
    // It is no JSON.
  }
  throw new BackupError('its second line is damaged');
}

function noBackup(start: Buffer): BackupError {
  const [line] = start.toString('latin1').split('\n', 1);
  return line.startsWith(ANY_MAGIC) && line !== MAGIC.toString('latin1').trimEnd()
    ? new BackupError(`it has format ${line.slice(ANY_MAGIC.length, 40)}; this version reads 1`)
    : new BackupError('it is no backup of Feed');
}
