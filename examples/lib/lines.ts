// The lines of a file as events, and whether events are those lines.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { NewEvent, StoredEvent } from './feed-client.ts';

export interface Lines {
  /** Each line without its end, the file again and again, until there are as many as wanted. */
  readonly lines: readonly string[];
  readonly linesInFile: number;
  readonly emptyLines: number;
  /** Lines with bytes that are not UTF-8, which an event can't hold: they become U+FFFD. */
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

/** What one stream uploads. */
export type Share = readonly NewEvent[];

/** One share of the lines for each stream. The id says which stream's event it is, and the how manieth. */
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
  /** Of each share, how far the events come. */
  readonly reached: readonly number[];
  /** Events that are missing before others, or came twice, or late, or with another line: the first few. */
  readonly wrong: readonly string[];
}

/** Streams may be stored in any order, but the events of each only in its own. */
export function compare(received: readonly StoredEvent[], shares: readonly Share[]): Comparison {
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

/** The file that the events make when each stream's are put together again. */
export function reassembled(received: readonly StoredEvent[], streams: number): string[] {
  const shares: string[][] = Array.from({ length: streams }, () => []);
  for (const { id, body } of received) shares[parseId(id).stream]?.push(body);
  return shares.flat();
}

export function digest(lines: Iterable<string>): string {
  const hash = createHash('sha256');
  for (const line of lines) hash.update(line).update('\n');
  return hash.digest('hex').slice(0, 16);
}
