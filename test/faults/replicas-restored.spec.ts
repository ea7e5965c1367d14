import { type ServiceError, status } from '@grpc/grpc-js';
import { connect } from '@nats-io/transport-node';
import { once } from 'node:events';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, type NatsServer } from '../support/nats.js';
import { runService, type Running } from '../support/service.js';
import { until, within } from '../support/wait.js';
import { clusterForTests, jetstream, readUpTo } from './replicas.js';
import { backUp, restore } from './stream-backup.js';

/** The servers may be down for longer than uploads wait by default. */
const PATIENT = { FEED_NATS_PATIENCE: '2m' };

/** What happened to a call in the end. */
interface Ended {
  readonly code: status;
  readonly reason: string | undefined;
}

const endOf = ({ code, metadata }: ServiceError): Ended => ({
  code,
  reason: metadata && errorInfo(metadata)?.reason,
});
const EPOCH_CHANGED: Ended = { code: status.FAILED_PRECONDITION, reason: 'EPOCH_CHANGED' };

const ids = (events: readonly Event[]): string[] => events.map(({ id }) => id);
const orders = (...names: readonly string[]): Partial<Event>[] =>
  names.map((id) => ({ topic: 'orders', id }));

interface Watching {
  readonly events: readonly Event[];
  readonly ended: Promise<Ended>;
}

/** Opens a watch and keeps what comes until it ends. Resolves once it has begun: what ends a watch may also refuse its start. */
async function watching(client: FeedClient, topic: string): Promise<Watching> {
  const events: Event[] = [];
  const call = client.Watch({ topic, position: 1 });
  call.on('data', (event: Event) => events.push(event));
  const ended = new Promise<Ended>((resolve) =>
    call.on('error', (error: ServiceError) => resolve(endOf(error))),
  );
  onTestFinished(() => call.cancel());
  await within(once(call, 'metadata'), 'the headers of a watch');
  return { events, ended };
}

/** Opens an upload and sends one event. */
function uploading(client: FeedClient): {
  send: (id: string) => void;
  ended: Promise<Ended | 'stored'>;
} {
  const { promise: ended, resolve } = Promise.withResolvers<Ended | 'stored'>();
  const call = client.UploadEvents((error) => resolve(error ? endOf(error) : 'stored'));
  call.on('error', () => {});
  onTestFinished(() => call.cancel());
  return { send: (id) => void call.write({ topic: 'orders', id }), ended };
}

/** Brings back an older state of the stream. */
type Backup = () => Promise<void>;

const WAYS: Record<string, (servers: readonly NatsServer[], stream: string) => Promise<Backup>> = {
  'from a snapshot': async (servers, stream) => {
    const connection = await connect({ servers: servers.map(({ url }) => url) });
    onTestFinished(() => connection.close());
    const backup = await backUp(connection, stream);
    return () => restore(connection, stream, backup);
  },
  "from copies of all servers' files": async (servers) => {
    const data = ({ directory }: NatsServer): string => join(directory, 'data');
    const copy = ({ directory }: NatsServer): string => join(directory, 'copy');
    const whileAllAreDown = async (work: (server: NatsServer) => void): Promise<void> => {
      await Promise.all(servers.map((server) => server.kill()));
      for (const server of servers) work(server);
      for (const server of servers) server.run();
      await Promise.all(servers.map((server) => server.ready()));
    };
    await whileAllAreDown((server) => {
      rmSync(copy(server), { recursive: true, force: true });
      cpSync(data(server), copy(server), { recursive: true });
    });
    return () =>
      whileAllAreDown((server) => {
        rmSync(data(server), { recursive: true });
        cpSync(copy(server), data(server), { recursive: true });
      });
  },
};

describe.skipIf(!NATS_SERVER)('a stream under running replicas', () => {
  const servers = clusterForTests();

  test.each(
    Object.keys(WAYS).flatMap((way) => [
      [way, 'as it is'] as const,
      [way, 'and then grows beyond what was lost'] as const,
    ]),
  )(
    'that is restored %s, %s, ends all watches with EPOCH_CHANGED, and nobody is given other events in silence',
    { timeout: 300_000 },
    async (way, rest) => {
      const settings: Record<string, string> = { ...jetstreamSettings(servers()), ...PATIENT };
      const replicas = [await runService(settings), await runService(settings)];
      const clients = replicas.map(({ client }) => client);
      const kept = (await upload(clients[0], orders('kept'))).result!;
      const bringBack = await WAYS[way](servers(), settings.FEED_NATS_STREAM);
      const lost = await storedOn(clients[1], 'lost 1', 'lost 2', 'lost 3');
      const watches = await Promise.all(
        clients.flatMap((client) => [watching(client, 'orders'), watching(client, 'quiet')]),
      );
      const open = clients.map(uploading);
      for (const { send } of open) send('lost 4');
      const sawAll = ({ events }: Watching): boolean => events.length === 5;
      await until(() => watches.filter(sawAll).length === 2, 'all events on both replicas');

      await bringBack();
      if (rest !== 'as it is') {
        const another = await runService(settings);
        for (let i = 0; i < 10; i++) await storedOn(another.client, `new ${i}`);
      }
      // An upload that was open before may not go on: its first event is gone.
      for (const { send } of open) send('after');
      for (const { ended } of watches)
        expect(await within(ended, 'the end of a watch', 60_000)).toEqual(EPOCH_CHANGED);
      for (const { ended } of open)
        expect(await within(ended, 'the end of an upload', 60_000)).toEqual({
          code: status.UNAVAILABLE,
          reason: 'STORE_UNAVAILABLE',
        });
      const seen = ['kept', 'lost 1', 'lost 2', 'lost 3', 'lost 4'];
      for (const { events } of watches) if (events.length > 0) expect(ids(events)).toEqual(seen);

      // What was stored before the backup is there, its cursor is good, and those of what was lost are refused.
      await storedOn(clients[0], 'end');
      const [log, other] = await Promise.all(
        clients.map((client) => readUpTo(client, 'orders', 'end')),
      );
      expect(other).toEqual(log);
      const grown = rest === 'as it is' ? [] : Array.from({ length: 10 }, (_, i) => `new ${i}`);
      expect(ids(log)).toEqual(['kept', ...grown, 'end']);
      for (const client of clients) {
        const goneOn = await take(
          client,
          { topic: 'orders', afterCursor: kept.lastCursor },
          grown.length + 1,
        );
        expect(ids(goneOn)).toEqual([...grown, 'end']);
        const refused = client.Watch({ topic: 'orders', afterCursor: lost });
        expect(endOf(await failure(refused))).toEqual(EPOCH_CHANGED);
      }
    },
  );

  test('that is restored and at once has as many messages as before is noticed all the same', async () => {
    const settings = jetstreamSettings(servers());
    const old = await runService(settings);
    await upload(old.client, orders('kept'));
    const bringBack = await WAYS['from a snapshot'](servers(), settings.FEED_NATS_STREAM);
    // One message is lost, and the other replica adds one at its start: the record of its epoch.
    const lost = await storedOn(old.client, 'lost');
    const watch = await watching(old.client, 'orders');
    await until(() => watch.events.length === 2, 'both events');
    await bringBack();
    await runService(settings);
    // The old replica may not have noticed yet. What it publishes is refused, or ends its history later.
    await upload(old.client, orders('after'));
    expect(await within(watch.ended, 'the end of the watch')).toEqual(EPOCH_CHANGED);
    expect(ids(watch.events)).toEqual(['kept', 'lost']);
    const refused = old.client.Watch({ topic: 'orders', afterCursor: lost });
    expect(endOf(await failure(refused))).toEqual(EPOCH_CHANGED);
  });

  /** Stores events of the topic `orders`. Tries again while the stream is not there. Returns the last one's cursor. */
  async function storedOn(client: FeedClient, ...names: readonly string[]): Promise<string> {
    let cursor = '';
    await until(
      async () => {
        const { result } = await upload(client, orders(...names));
        cursor = result?.lastCursor ?? '';
        return result !== undefined;
      },
      'the stream to take events',
      60_000,
    );
    return cursor;
  }

  test('that was deleted and made anew takes nothing from a writer of the old one', async () => {
    const settings = jetstreamSettings(servers());
    const stream = settings.FEED_NATS_STREAM;
    const old = await runService(settings);
    await upload(old.client, orders('old'));
    const connection = await servers()[0].connect();
    onTestFinished(() => connection.close());
    interface Info {
      readonly config: { readonly subjects: readonly string[] };
      readonly state: { readonly last_seq: number };
    }
    const info = (): Promise<Info> => jetstream<Info>(connection, `STREAM.INFO.${stream}`);
    const [oldSubject] = (await info()).config.subjects;
    await jetstream(connection, `STREAM.DELETE.${stream}`);
    const fresh: Running = await runService(settings);
    await upload(fresh.client, orders('new'));
    const before = await info();
    expect(before.config.subjects).not.toContain(oldSubject);
    // What a replica that has not noticed yet would publish, even if it were right about the last sequence.
    await expect(connection.request(`${oldSubject}.orders`, 'x')).rejects.toThrow(/no responders/i);
    expect((await info()).state.last_seq).toBe(before.state.last_seq);
    expect(ids(await take(fresh.client, { topic: 'orders', position: 1 }, 1))).toEqual(['new']);
  });
});
