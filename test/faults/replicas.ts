import type { NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import type { FeedClient } from '../support/client.js';
import { NATS_SERVER, NatsServer } from '../support/nats.js';
import { ServiceProcess } from '../support/service.js';

/**
 * Starts a cluster of three nats-servers that flush, for the tests of a block, unless none can be had. Returns a function
 * that returns the servers.
 */
export function clusterForTests(): () => readonly NatsServer[] {
  let started: NatsServer[] = [];
  beforeAll(async () => {
    if (NATS_SERVER) started = await NatsServer.start(3);
  });
  afterAll(() => Promise.all(started.map((server) => server.remove())));
  return () => started;
}

/** Starts so many replicas, one after another. All have the same settings, and so the same stream. */
export async function startReplicas(
  count: number,
  settings: Record<string, string>,
): Promise<ServiceProcess[]> {
  const replicas: ServiceProcess[] = [];
  while (replicas.length < count) replicas.push(await ServiceProcess.start(settings));
  return replicas;
}

/** Reads a topic from the oldest event that is held up to the one with this id. */
export async function readUpTo(client: FeedClient, topic: string, id: string): Promise<Event[]> {
  const call = client.Watch({ topic, position: 1 });
  const events: Event[] = [];
  try {
    for await (const event of call as AsyncIterable<Event>) {
      events.push(event);
      if (event.id === id) break;
    }
  } finally {
    call.on('error', () => {});
    call.cancel();
  }
  return events;
}

/** Sends a request to JetStream's API, such as STREAM.INFO.<stream>. Throws the error that it answers with. */
export async function jetstream<T>(
  connection: NatsConnection,
  operation: string,
  body: object = {},
): Promise<T> {
  const answer = await connection.request(`$JS.API.${operation}`, JSON.stringify(body), {
    timeout: 10_000,
  });
  const parsed = answer.json<T & { error?: { description: string } }>();
  if (parsed.error) throw new Error(`${operation}: ${parsed.error.description}`);
  return parsed;
}
