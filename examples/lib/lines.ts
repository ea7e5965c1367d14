// Makes events of the lines of a file, and compares received events with those lines.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Event, NewEvent } from '@feed-events/client';

export interface Lines {
  /** The requested number of lines, without their line breaks. If the file has fewer, it is repeated. */
  readonly lines: readonly string[];
  readonly linesInFile: number;
  readonly emptyLines: number;
  /** The number of lines with bytes that are not UTF-8. An event can't hold such bytes, so they become U+FFFD. */
  readonly repairedLines: number;
}

export function readLines(path: string, wanted: number): Lines {
  const bytes = readFileSync(path);
  const file: string[] = [];
  let repairedLines = 0;
  for (let start = 0; start < bytes.length;) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline < 0 ? bytes.length : newline;
    const line = bytes.subarray(start, end);
    const text = line.toString('utf8');
    if (!Buffer.from(text).equals(line)) repairedLines++;
    file.push(text);
    start = end + 1;
  }
  if (file.length === 0) throw new Error(`${path} is empty: name another file with --file`);
  return {
    lines: Array.from({ length: wanted }, (_, i) => file[i % file.length]),
    linesInFile: file.length,
    emptyLines: file.filter((line) => line === '').length,
    repairedLines,
  };
}

/** The events that one stream uploads. */
export type Share = readonly NewEvent[];

/** Divides the lines among the streams. The id of an event names its stream and its index in it: s2-000017. */
export function sharesOf(lines: readonly string[], streams: number, topic: string): Share[] {
  const size = Math.ceil(lines.length / streams);
  return Array.from({ length: streams }, (_, stream) =>
    lines.slice(stream * size, (stream + 1) * size).map((body, number) => ({
      id: `s${stream}-${String(number).padStart(6, '0')}`,
      topic,
      body,
    })),
  );
}

function parseId(id: string): { stream: number; number: number } {
  const [, stream, number] = /^s(\d+)-(\d+)$/.exec(id) ?? [];
  return { stream: Number(stream), number: Number(number) };
}

export interface Comparison {
  /** For each share, the index of its last received event plus 1: its length if all came. */
  readonly reached: readonly number[];
  /**
   * Describes the first few wrong events: they came twice, too late, with another line, or without the ones before
   * them.
   */
  readonly wrong: readonly string[];
}

/**
 * Compares received events with the shares. The streams may be mixed in any way, but each must keep its own order.
 */
export function compare(received: readonly Event[], shares: readonly Share[]): Comparison {
  const reached = shares.map(() => 0);
  const wrong: string[] = [];
  received.forEach(({ id, body, cursor }, i) => {
    const { stream, number } = parseId(id);
    const expected = shares[stream]?.[number];
    let problem: string | undefined;
    if (id !== expected?.id) problem = 'was never sent';
    else if (body !== expected.body) problem = 'has another line';
    else if (number < reached[stream]) problem = 'came twice, or too late';
    else if (number > reached[stream])
      problem = `came without ${number - reached[stream]} before it`;
    if (number >= reached[stream]) reached[stream] = number + 1;
    if (problem !== undefined && wrong.length < 5) {
      wrong.push(`event ${i + 1}, ${id} (cursor ${cursor}), ${problem}`);
    }
  });
  return { reached, wrong };
}

/** Puts the lines of each stream together again, and returns the lines of the file. */
export function reassembled(received: readonly Event[], streams: number): string[] {
  const shares: string[][] = Array.from({ length: streams }, () => []);
  for (const { id, body } of received) shares[parseId(id).stream]?.push(body);
  return shares.flat();
}

/** Returns the first 16 hex digits of the SHA-256 of lines. */
export function digest(lines: Iterable<string>): string {
  const hash = createHash('sha256');
  for (const line of lines) hash.update(line).update('\n');
  return hash.digest('hex').slice(0, 16);
}
