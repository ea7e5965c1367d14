import { once } from 'node:events';
import { connect, createServer, type ServerHttp2Stream } from 'node:http2';
import { Session } from 'node:inspector/promises';
import type { AddressInfo } from 'node:net';

/** The costs of a piece of work in this process, counted and not timed. */
export interface Cost {
  /** Writes to HTTP/2 streams of the server. */
  readonly writes: number;
  /** Bytes that JavaScript copied from buffer to buffer. */
  readonly copied: number;
  /** Bytes of all new objects, including those that were collected soon. A sampling profiler estimates them. */
  readonly allocated: number;
}

/**
 * Returns the prototype of node's HTTP/2 stream handles, whose writeBuffer and writev write the bytes of all streams.
 * Node does not export it, so it is taken from a stream.
 */
async function handlePrototype(): Promise<object> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  client.request().on('error', () => {});
  const [stream] = (await once(server, 'stream')) as [ServerHttp2Stream];
  const handleSymbol = Object.getOwnPropertySymbols(stream).find(
    ({ description }) => description === 'kHandle',
  )!;
  let found = (stream as unknown as Record<symbol, object>)[handleSymbol];
  while (!Object.hasOwn(found, 'writeBuffer')) found = Object.getPrototypeOf(found) as object;
  client.destroy();
  server.close();
  return found;
}

/** Runs the work twice: once to count writes and copies, once to measure what it allocates. */
export async function costOf(work: () => Promise<unknown>): Promise<Cost> {
  return { ...(await counted(work)), allocated: await allocatedBy(work) };
}

async function counted(work: () => Promise<unknown>): Promise<Pick<Cost, 'writes' | 'copied'>> {
  let writes = 0;
  let copied = 0;
  const handle = await handlePrototype();
  const { copy } = unbound(Buffer.prototype);
  const { concat } = unbound(Buffer);
  const { set } = unbound(Uint8Array.prototype);
  const { writeBuffer, writev } = unbound(handle);
  const restore = [
    ...Object.entries({ writeBuffer, writev }).map(([name, write]) =>
      replace(handle, name, function (this: object, ...args: unknown[]) {
        writes++;
        return write.apply(this, args);
      }),
    ),
    replace(Buffer.prototype, 'copy', function (this: Buffer, ...args: unknown[]) {
      const bytes = copy.apply(this, args) as number;
      copied += bytes;
      return bytes;
    }),
    replace(Buffer, 'concat', (...args: unknown[]) => {
      const whole = concat.apply(Buffer, args) as Buffer;
      copied += whole.length;
      return whole;
    }),
    replace(Uint8Array.prototype, 'set', function (this: Uint8Array, ...args: unknown[]) {
      copied += (args[0] as ArrayLike<number>).length;
      set.apply(this, args);
    }),
  ];
  try {
    await work();
  } finally {
    for (const undo of restore) undo();
  }
  return { writes, copied };
}

async function allocatedBy(work: () => Promise<unknown>): Promise<number> {
  const session = new Session();
  session.connect();
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: 512,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  } as object);
  await work();
  const { profile } = (await session.post('HeapProfiler.stopSampling')) as unknown as {
    profile: { samples: readonly { size: number }[] };
  };
  session.disconnect();
  return profile.samples.reduce((sum, { size }) => sum + size, 0);
}

type Functions = Readonly<Record<string, Function>>;

const unbound = (object: object): Functions => object as Functions;

/**
 * Replaces a property of an object.
 *
 * @returns a function that restores the property
 */
function replace(object: object, name: string, by: Function): () => void {
  const before = Object.getOwnPropertyDescriptor(object, name);
  Object.defineProperty(object, name, { value: by, configurable: true, writable: true });
  return () => {
    if (before) Object.defineProperty(object, name, before);
    else Reflect.deleteProperty(object, name);
  };
}
