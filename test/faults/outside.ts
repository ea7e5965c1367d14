import { readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'lmdb';
import { eventually } from '../support/wait.js';

/** What can be seen of a process without asking it. */

const ESTABLISHED = '01';

/** The connections to a port that a process has, as the kernel says. */
export function connections(pid: number, port: number): number {
  const held = socketsOf(pid);
  const at = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return ['tcp', 'tcp6']
    .flatMap((file) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8').split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(at) && state === ESTABLISHED)
    .filter(([, , , , , , , , , inode]) => held.has(`socket:[${inode}]`)).length;
}

/** The sockets of any kind that a process has. */
export function socketsOf(pid: number): Set<string> {
  const directory = `/proc/${pid}/fd`;
  const targets = readdirSync(directory).map((file) => {
    try {
      return readlinkSync(join(directory, file));
    } catch {
      return ''; // closed meanwhile
    }
  });
  return new Set(targets.filter((target) => target.startsWith('socket:')));
}

/** The places in the reader list of a process's log, and how many of them hold a snapshot of it. */
export async function readers(
  pid: number,
  dataDirectory: string,
): Promise<{ places: number; reading: number }> {
  const log = open({ path: join(dataDirectory, 'log'), readOnly: true, maxDbs: 8 });
  try {
    const transactions = [...log.readerList().matchAll(/^ *(\d+) +\S+ +(\S+)$/gm)]
      .filter(([, reader]) => Number(reader) === pid)
      .map(([, , transaction]) => transaction);
    return {
      places: transactions.length,
      reading: transactions.filter((transaction) => transaction !== '-').length,
    };
  } finally {
    await log.close();
  }
}

interface Snapshot {
  readonly snapshot: { readonly meta: { readonly node_fields: string[]; node_types: [string[]] } };
  readonly nodes: number[];
  readonly strings: string[];
}

/**
 * How many objects of each class are alive in a node that runs with --heapsnapshot-signal=SIGUSR2 and with this
 * --diagnostic-dir.
 */
export async function heap(pid: number, directory: string): Promise<Map<string, number>> {
  process.kill(pid, 'SIGUSR2');
  const { snapshot, nodes, strings } = await written(directory);
  const fields = snapshot.meta.node_fields;
  const type = fields.indexOf('type');
  const name = fields.indexOf('name');
  const object = snapshot.meta.node_types[type].indexOf('object');
  const counts = new Map<string, number>();
  for (let at = 0; at < nodes.length; at += fields.length) {
    if (nodes[at + type] !== object) continue;
    const className = strings[nodes[at + name]];
    counts.set(className, (counts.get(className) ?? 0) + 1);
  }
  return counts;
}

/** A process with much in memory writes its snapshot for long (milliseconds). */
const SNAPSHOT_TIMEOUT = 60_000;

/** Takes the file once it is whole: until then it is no JSON. */
function written(directory: string): Promise<Snapshot> {
  const take = (): Snapshot => {
    const file = readdirSync(directory).find((name) => name.endsWith('.heapsnapshot'));
    if (!file) throw new Error(`no heap snapshot in ${directory}`);
    const path = join(directory, file);
    const snapshot = JSON.parse(readFileSync(path, 'utf8')) as Snapshot;
    rmSync(path);
    return snapshot;
  };
  return eventually(take, SNAPSHOT_TIMEOUT, 200);
}
