import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { expect } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { parseCursor } from '../../src/wire/cursor.js';
import { errorInfo, type FeedClient, upload } from '../support/client.js';
import type { ServiceProcess } from '../support/service.js';
import { until } from '../support/wait.js';

const TOPICS = ['orders', 'invoices', 'audit'];
const UPLOADERS = 3;
const BODY = 'x'.repeat(200);
/** The long upload sends a batch at each interval (milliseconds): few enough to leave time for the small uploads. */
const STREAM_BATCH = 10;
const STREAM_INTERVAL = 5;

/** An acknowledged event. Its cursor is known only if it was the last of its upload. */
interface Known {
  readonly id: string;
  readonly cursor?: string;
}

interface Held {
  /** Retention has removed the topic's events up to this position; 0 if none. */
  readonly floor: number;
  readonly events: readonly Event[];
}

/**
 * Clients that upload and watch while a test kills and restarts the service. They record the events that it acknowledged
 * and delivered, and check after each restart that it still has them.
 */
export class Witness {
  private readonly acknowledged = new Map(TOPICS.map((topic) => [topic, [] as Known[]]));
  /** The events that one watch per topic got: it starts from earliest, and resumes after each break. */
  private readonly delivered = new Map(TOPICS.map((topic) => [topic, [] as Event[]]));
  /** For each uploader: its last acknowledged events and its unacknowledged ones, which it sends again after a break. */
  private readonly again: { known: Sent | undefined; unknown: Sent | undefined }[] = [];
  private readonly breaches: string[] = [];
  private uploads = 0;
  private rounds = 0;
  private ends: Promise<void>[] = [];
  private clients: FeedClient[] = [];

  /** Begins to upload and watch, until the service is gone. */
  begin(service: ServiceProcess): void {
    const round = this.rounds++;
    this.clients = [service.connect(), service.connect()];
    for (const topic of TOPICS) this.watch(this.clients[0], topic);
    this.ends = Array.from({ length: UPLOADERS }, (_, i) =>
      this.uploadOneByOne(this.clients[i % 2], i, round),
    );
    this.ends.push(this.stream(this.clients[1], round));
  }

  /** Waits until `count` more uploads are acknowledged. */
  async sees(count: number): Promise<void> {
    const wanted = this.uploads + count;
    await until(
      () => this.uploads >= wanted || this.breaches.length > 0,
      `${count} acknowledgements`,
      120_000,
    );
  }

  /** Waits until all calls have ended, once the service is gone. */
  async ended(): Promise<void> {
    await Promise.all(this.ends);
    for (const client of this.clients) client.close();
  }

  /**
   * Checks that a service has all acknowledged and delivered events, in order.
   *
   * @returns how many events it holds
   */
  async check(service: ServiceProcess): Promise<number> {
    const client = service.connect();
    let count = 0;
    for (const topic of TOPICS) {
      const held = await heldOf(client, topic);
      expect(this.breaches).toEqual([]);
      this.checkTopic(topic, held);
      count += held.events.length;
    }
    client.close();
    return count;
  }

  /** How many events were acknowledged. */
  get acknowledgedCount(): number {
    return [...this.acknowledged.values()].reduce((sum, { length }) => sum + length, 0);
  }

  get deliveredCount(): number {
    return [...this.delivered.values()].reduce((sum, { length }) => sum + length, 0);
  }

  private checkTopic(topic: string, { floor, events }: Held): void {
    const cursors = new Map(events.map(({ id, cursor }) => [id, cursor]));
    expect(cursors.size, `${topic}: each id once`).toBe(events.length);
    expect(firstUnordered(events), `${topic}: not after the one before`).toBeUndefined();

    const missing = this.acknowledged.get(topic)!.filter(({ id, cursor }) => {
      if (!cursors.has(id)) return floor === 0 || (cursor && positionOf(cursor) > floor);
      return cursor && cursors.get(id) !== cursor;
    });
    expect(missing, `${topic}: acknowledged, and not there`).toEqual([]);

    const delivered = this.delivered.get(topic)!.filter(({ cursor }) => positionOf(cursor) > floor);
    const difference = delivered.findIndex(
      ({ id, cursor }, i) => id !== events[i]?.id || cursor !== events[i]?.cursor,
    );
    expect(
      difference < 0 ? [] : [delivered[difference], events[difference]],
      `${topic}: delivered, and what is there instead`,
    ).toEqual([]);

    expect(gapsInStreams(events, floor), `${topic}: not a prefix of its upload`).toEqual([]);
  }

  private watch(client: FeedClient, topic: string): void {
    const delivered = this.delivered.get(topic)!;
    const last = delivered.at(-1);
    const call = client.Watch({
      topic,
      ...(last ? { afterCursor: last.cursor } : { position: 1 }),
    });
    call.on('data', (event: Event) => delivered.push(event));
    call.on('error', (error: ServiceError) => this.noteRefusal(`watch of ${topic}`, error));
  }

  private async uploadOneByOne(client: FeedClient, uploader: number, round: number): Promise<void> {
    const again = (this.again[uploader] ??= { known: undefined, unknown: undefined });
    if (again.known && !(await this.sendAgain(client, again.known))) return;
    for (let i = 0; ; i++) {
      const events = again.unknown?.events ?? eventsOf(`${round}-${uploader}-${i}`, i);
      again.unknown = { events, lastCursor: '' };
      const { result, error } = await upload(client, events);
      if (!result) return this.noteRefusal('upload', error!);
      again.known = { events, lastCursor: result.lastCursor };
      again.unknown = undefined;
      this.noteAcknowledged(again.known);
      if (i % 5 === 4 && !(await this.sendAgain(client, again.known))) return;
    }
  }

  /** Sends acknowledged events again, as an unsure producer may, and checks that they are taken for duplicates. */
  private async sendAgain(client: FeedClient, { events, lastCursor }: Sent): Promise<boolean> {
    const { result, error } = await upload(client, events);
    if (!result) {
      this.noteRefusal('upload', error!);
      return false;
    }
    if (result.duplicates !== events.length || result.lastCursor !== lastCursor) {
      this.breaches.push(`${events[0].id}, stored at ${lastCursor}, is not taken for a duplicate`);
    }
    return true;
  }

  /** Uploads without end, until the call breaks. */
  private stream(client: FeedClient, round: number): Promise<void> {
    return new Promise((resolve) => {
      let sent = 0;
      const call = client.UploadEvents((error) => {
        clearInterval(timer);
        if (error) this.noteRefusal('long upload', error);
        resolve();
      });
      call.on('error', () => {});
      const timer = setInterval(() => {
        for (let i = 0; i < STREAM_BATCH; i++) {
          call.write({ id: `${round}-stream-${sent++}`, topic: TOPICS[0], body: BODY });
        }
      }, STREAM_INTERVAL);
    });
  }

  private noteAcknowledged({ events, lastCursor }: Sent): void {
    this.uploads++;
    events.forEach(({ id, topic }, i) => {
      const cursor = i === events.length - 1 ? lastCursor : undefined;
      this.acknowledged.get(topic)!.push({ id, cursor });
    });
  }

  /** Records a breach if the service gave a reason. A broken connection gives none, and nothing else may end a call here. */
  private noteRefusal(what: string, { metadata, message }: ServiceError): void {
    if (errorInfo(metadata)) this.breaches.push(`${what}: ${message}`);
  }
}

interface Sent {
  readonly events: readonly { id: string; topic: string; body: string }[];
  readonly lastCursor: string;
}

/** Makes one event, or one in each topic. */
function eventsOf(id: string, i: number): Sent['events'] {
  const topics = i % 4 === 3 ? TOPICS : [TOPICS[i % TOPICS.length]];
  return topics.map((topic) => ({ id, topic, body: BODY }));
}

const positionOf = (cursor: string): number => parseCursor(cursor)!.position;

/** Reads a topic from earliest up to an event that is uploaded to mark its end. */
async function heldOf(client: FeedClient, topic: string): Promise<Held> {
  const { result, error } = await upload(client, [{ topic, body: 'end' }]);
  if (!result) throw error!;
  const call = client.Watch({ topic, position: 1 });
  const headers = new Promise<Metadata>((resolve) => call.on('metadata', resolve));
  const events: Event[] = [];
  for await (const event of call as AsyncIterable<Event>) {
    events.push(event);
    if (event.cursor === result.lastCursor) break;
  }
  const [earliest] = (await headers).get('feed-earliest');
  return { floor: positionOf(earliest as string), events };
}

function firstUnordered(events: readonly Event[]): Event | undefined {
  return events.find(
    ({ cursor }, i) => i > 0 && positionOf(cursor) <= positionOf(events[i - 1].cursor),
  );
}

/** Returns the ids of events of long uploads that are not stored directly after the event sent before them. */
function gapsInStreams(events: readonly Event[], floor: number): string[] {
  const next = new Map<string, number>();
  return events
    .map(({ id }) => /^(\d+)-stream-(\d+)$/.exec(id))
    .filter((match) => match !== null)
    .filter(([, round, index]) => {
      const expected = next.get(round) ?? (floor === 0 ? 0 : Number(index));
      next.set(round, Number(index) + 1);
      return Number(index) !== expected;
    })
    .map(([id]) => id);
}
