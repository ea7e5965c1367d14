import { readFileSync } from 'node:fs';
import {
  connect,
  type ConnectionOptions,
  credsAuthenticator,
  type NatsConnection,
} from '@nats-io/transport-node';

/** Where NATS is, and how to connect. Files are PEM, but for `credentials`, a creds file. */
export interface NatsServers {
  readonly servers: readonly string[];
  readonly credentials: string | undefined;
  readonly tlsCa: string | undefined;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
}

/** Receives messages for the operator. */
export interface Notices {
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** An idle connection that is cut is noticed after two of these (milliseconds). The client's default is two minutes. */
const PING_INTERVAL = 4_000;
/** While there is no connection, a start says so this often (milliseconds). */
const NOTICE_INTERVAL = 5_000;

/** Connects as soon as NATS can be reached, and says so while it can't. Once connected, it reconnects by itself. */
export async function connectPatiently(
  nats: NatsServers,
  notices: Notices,
): Promise<NatsConnection> {
  const timer = setInterval(
    () =>
      notices.warn(`waiting for NATS at ${nats.servers.join(', ')}: not ready until it answers`),
    NOTICE_INTERVAL,
  );
  try {
    return await connect({ ...optionsOf(nats), waitOnFirstConnect: true });
  } finally {
    clearInterval(timer);
  }
}

/** Connects, or rejects within some seconds. */
export function connectOnce(nats: NatsServers): Promise<NatsConnection> {
  return connect({ ...optionsOf(nats), timeout: 5_000 });
}

function optionsOf(nats: NatsServers): ConnectionOptions {
  const { credentials, tlsCa: caFile, tlsCert: certFile, tlsKey: keyFile } = nats;
  const hasTls = caFile !== undefined || certFile !== undefined;
  return {
    servers: [...nats.servers],
    name: 'feed',
    maxReconnectAttempts: -1,
    reconnectTimeWait: 200,
    pingInterval: PING_INTERVAL,
    maxPingOut: 2,
    noAsyncTraces: true,
    ...(hasTls ? { tls: { caFile, certFile, keyFile } } : {}),
    ...(credentials === undefined
      ? {}
      : { authenticator: credsAuthenticator(new Uint8Array(readFileSync(credentials))) }),
  };
}
