import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
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

/**
 * Starts one nats-server for the tests of a file. open() opens a replica until the end of the test, and openStream() one of the stream
 * that a directory stands for.
 */
export function natsForTests(): {
  server: () => NatsServer;
  /** Returns a name that no stream has yet. */
  newStream: () => string;
  open: (stream: string, options?: Partial<JetStreamOptions>) => Promise<JetStreamLog>;
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
  let streams = 0;
  const newStream = (): string => `T${streams++}`;
  const open = async (stream: string, options?: Partial<JetStreamOptions>) => {
    const log = await openReplica(server(), stream, options);
    onTestFinished(() => log.close());
    return log;
  };
  return { server, newStream, open, openStream };
}

/** Returns the name of a directory's stream: its last characters, which are random. */
export const streamOf = (directory: string): string => `S${directory.slice(-6)}`;
