import { readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'lmdb';
import { eventually } from '../support/wait.js';

// These functions look at a process from outside.

const ESTABLISHED = '01';

/**
 * Returns the peers (host:port) of the connections that a process has on a port, by the kernel's tables. The kernel hands a
 * table out in parts. If other processes open and close sockets meanwhile, rows come twice, hundreds of them on a busy
 * machine, or may be left out.
 */
export function peers(pid: number, port: number): Set<string> {
  const held = socketsOf(pid);
  const at = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const found = ['tcp', 'tcp6']
    .flatMap((file) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8').split('\n').slice(1))
    // The columns of the kernel's table (proc(5), /proc/net/tcp).
    .map((line) => line.trim().split(/\s+/))
    .map((columns) => ({
      local: columns[1],
      remote: columns[2],
      state: columns[3],
      inode: columns[9],
    }))
    .filter(({ local, state }) => local?.endsWith(at) && state === ESTABLISHED)
    .filter(({ inode }) => held.has(`socket:[${inode}]`));
  return new Set(found.map(({ remote }) => address(remote)));
}

/** Decodes an address of the kernel's table: `0100007F:C350` is 127.0.0.1:50000. One of IPv6 keeps its hexadecimal host. */
function address(hex: string): string {
  const [host, port] = hex.split(':');
  const bytes = Buffer.from(host, 'hex').toReversed(); // the kernel writes them as a little-endian number
  return `${bytes.length === 4 ? bytes.join('.') : host}:${Number.parseInt(port, 16)}`;
}

/** Returns the sockets of any kind that a process has. */
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

/** Counts the places that a process has in the reader list of its log, and those of them that hold a snapshot. */
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
 * Counts the live objects of each class in a node process that was started with --heapsnapshot-signal=SIGUSR2 and with
 * this directory as its --diagnostic-dir.
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

/** How long (milliseconds) a process with a large heap may take to write its snapshot. */
const SNAPSHOT_TIMEOUT = 240_000;

/** Waits until the snapshot's file is complete, which is when it is valid JSON; reads and removes it. */
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
