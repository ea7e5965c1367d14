import type { ServiceError } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Event, UploadResult } from '../../src/gen/feed/v1/feed.js';
import { connect, errorInfo, upload } from '../support/client.js';
import { standstill, until, within } from '../support/wait.js';

/** A replica, as its clients know it. */
export interface Door {
  /** host:port of gRPC. */
  readonly address: string;
}

/** An event as a watch got it. */
interface Seen {
  readonly id: string;
  readonly cursor: string;
}

/** What a producer knows at its end. */
interface Produced {
  /** It sent the events 0 to count - 1. */
  readonly count: number;
  /** The last event of each upload that was acknowledged, with its cursor. */
  readonly acknowledged: readonly Seen[];
}

/** The id of the event that follows all numbered ones of a topic. */
const END = 'end';
/** An upload sends its events in so many parts, this many milliseconds apart, so that a fault finds it half done. */
const PARTS = 3;
const PART_INTERVAL = 3;
const RETRY_INTERVAL = 50;
/** How long (milliseconds) clients may take to end once nothing is broken any more. */
const END_TIMEOUT = 90_000;

/**
 * Topics whose events are numbered 0, 1, 2 ... Each has a producer and a consumer on each replica. All producers of a topic
 * send the same events.
 */
export class NumberedTopics {
  private isOver = false;
  private uploads = 0;
  private producers: Promise<Produced>[][] = [];
  private consumers: Promise<Seen[]>[][] = [];

  constructor(
    private readonly topics: readonly string[],
    private readonly replicas: readonly Door[],
  ) {}

  /** Lets producers and consumers begin. They go on whatever breaks. */
  begin(): void {
    for (const topic of this.topics) {
      const onUpload = (): boolean => {
        this.uploads++;
        return this.isOver;
      };
      this.producers.push(this.replicas.map((replica) => produce(replica, topic, onUpload)));
      this.consumers.push(this.replicas.map((_, i) => follow(this.replicas, i, topic)));
    }
    // What fails meanwhile is thrown where end() awaits it.
    for (const work of [...this.producers, ...this.consumers].flat()) work.catch(() => {});
  }

  /** Waits until `count` more uploads are acknowledged. */
  async more(count: number): Promise<void> {
    const wanted = this.uploads + count;
    await until(() => this.uploads >= wanted, `${count} acknowledgements`, END_TIMEOUT);
  }

  /** Waits until no answers are on their way any more, while nothing can be stored. */
  async standstill(): Promise<void> {
    await standstill(() => this.uploads);
  }

  /**
   * Call it when nothing is broken any more. Lets the producers end, and checks that each event was stored once and in order,
   * that all replicas have the same log, and that consumers got exactly that, with the cursors that producers were told.
   *
   * @param fresh a replica that was started after the faults
   * @returns how many events the topics have
   */
  async end(fresh: Door): Promise<number> {
    this.isOver = true;
    let events = 0;
    for (const [i, topic] of this.topics.entries()) {
      const produced = await within(
        Promise.all(this.producers[i]),
        `the end of the producers of ${topic}`,
        END_TIMEOUT,
      );
      await end(fresh, topic);
      const held = await within(
        Promise.all([fresh, ...this.replicas].map((replica) => follow([replica], 0, topic))),
        `all events of ${topic} on each replica`,
        END_TIMEOUT,
      );
      const followed = await within(
        Promise.all(this.consumers[i]),
        `the end of the consumers of ${topic}`,
        END_TIMEOUT,
      );
      const [log] = held;
      for (const seen of [...held, ...followed]) expect(seen).toEqual(log);
      expect(log.length).toBe(Math.max(...produced.map(({ count }) => count)));
      for (const { acknowledged } of produced)
        expect(acknowledged.map(({ id }) => log[Number(id)])).toEqual(acknowledged);
      events += log.length;
    }
    return events;
  }
}

/**
 * Sends the events 0, 1, 2 ... of a topic to a replica, as a producer does: after a failure, it goes on with the first event
 * that is not known to be stored.
 *
 * @param onUpload is called when an upload is acknowledged; if it returns true, that was the last one
 * @throws if an upload ends with a reason that is not promised
 */
async function produce(replica: Door, topic: string, onUpload: () => boolean): Promise<Produced> {
  const acknowledged: Seen[] = [];
  let count = 0;
  for (;;) {
    const { error, result } = await uploadInParts(replica, topic, count, 1 + (count % 20));
    count += result?.received ?? receivedOf(error!);
    if (result) {
      acknowledged.push({ id: String(count - 1), cursor: result.lastCursor });
      if (onUpload()) return { count, acknowledged };
    } else {
      await sleep(RETRY_INTERVAL);
    }
  }
}

interface Outcome {
  readonly error?: ServiceError;
  readonly result?: UploadResult;
}

async function uploadInParts(
  { address }: Door,
  topic: string,
  from: number,
  count: number,
): Promise<Outcome> {
  const client = connect(address);
  const outcome = Promise.withResolvers<Outcome>();
  const call = client.UploadEvents((error, result) =>
    outcome.resolve(error ? { error } : { result }),
  );
  const partSize = Math.ceil(count / PARTS);
  for (let i = 0; i < count; i++) {
    if (i > 0 && i % partSize === 0) await sleep(PART_INTERVAL);
    call.write({ topic, id: String(from + i) });
  }
  call.end();
  const { error, result } = await outcome.promise;
  client.close();
  return { error, result };
}

/**
 * Watches a topic from earliest until its end, as a consumer does: after a break, it goes on after its last cursor, on the next
 * replica. Returns all events but the end.
 *
 * @throws if an event is missing, doubled or out of order, or a watch ends with a reason that is not promised
 */
async function follow(replicas: readonly Door[], first: number, topic: string): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (let at = first; ; at++) {
    if (await watch(replicas[at % replicas.length], topic, seen)) return seen;
    await sleep(RETRY_INTERVAL);
  }
}

/** Watches on, and adds to `seen`. Returns true at the topic's end, and false when the watch breaks. */
async function watch({ address }: Door, topic: string, seen: Seen[]): Promise<boolean> {
  const client = connect(address);
  const last = seen.at(-1);
  const call = client.Watch({ topic, ...(last ? { afterCursor: last.cursor } : { position: 1 }) });
  try {
    for await (const { id, cursor } of call as AsyncIterable<Event>) {
      if (id === END) return true;
      const wanted = String(seen.length);
      if (id !== wanted) throw new Error(`${topic}: ${id} came at ${cursor}, not ${wanted}`);
      seen.push({ id, cursor });
    }
  } catch (error) {
    receivedOf(error as ServiceError);
  } finally {
    call.on('error', () => {});
    call.cancel();
    client.close();
  }
  return false;
}

/** Adds the event that ends a topic. It tries again, as long as it fails because of what a fault does. */
async function end({ address }: Door, topic: string): Promise<void> {
  for (;;) {
    const client = connect(address);
    const { error } = await upload(client, [{ topic, id: END }]);
    client.close();
    if (!error) return;
    receivedOf(error);
    await sleep(RETRY_INTERVAL);
  }
}

/** Returns how many events of a call that broke are known to be stored. Throws the error if nothing that a fault does is its cause. */
function receivedOf(error: ServiceError): number {
  // An error of these tests has none, and that of a broken connection has no reason.
  if (!error.metadata) throw error;
  const info = errorInfo(error.metadata);
  if (!info) return 0;
  if (info.reason !== 'STORE_UNAVAILABLE') throw error;
  return Number(info.metadata.received ?? 0);
}
