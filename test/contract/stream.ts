import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll } from 'vitest';
import {
  JetStreamLog,
  type JetStreamOptions,
} from '../../src/repository/jetstream/jetstream-log.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { NATS_SERVER, NatsServer } from '../support/nats.js';

const SILENT = { info: () => {}, warn: () => {}, error: () => {} };

export const reconnecting = (server: NatsServer): Promise<NatsConnection> =>
  connect({
    servers: server.url,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
    pingInterval: 1_000,
    maxPingOut: 2,
  });

/** Opens a replica of a stream, on a connection of its own. */
export async function openReplica(
  server: NatsServer,
  stream: string,
  options: Partial<JetStreamOptions> = {},
): Promise<JetStreamLog> {
  return JetStreamLog.open({
    connection: await reconnecting(server),
    stream,
    replicas: 1,
    durability: 'memory',
    dedup: { ids: 0, milliseconds: 0 },
    retention: KEEP_ALL,
    patience: 20_000,
    notices: SILENT,
    ...options,
  });
}

/** Starts one nats-server for the tests of a file. openStream() opens a replica of the stream that a directory stands for. */
export function natsForTests(): {
  server: () => NatsServer;
  openStream: (directory: string, options?: Partial<JetStreamOptions>) => Promise<JetStreamLog>;
} {
  let started: NatsServer | undefined;
  beforeAll(async () => {
    if (NATS_SERVER) [started] = await NatsServer.start(1, { jetstream: '' });
  });
  afterAll(() => started?.remove());
  const server = (): NatsServer => started!;
  const openStream = (directory: string, options?: Partial<JetStreamOptions>) =>
    openReplica(server(), streamOf(directory), options);
  return { server, openStream };
}

/** Returns the name of a directory's stream: its last characters, which are random. */
export const streamOf = (directory: string): string => `S${directory.slice(-6)}`;
