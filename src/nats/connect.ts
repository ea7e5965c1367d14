import { setTimeout as sleep } from 'node:timers/promises';
import {
  connect,
  type ConnectionOptions,
  type NatsConnection,
  TimeoutError,
} from '@nats-io/transport-node';
import { connectFailure } from './connect-failure.js';
import { userOf } from './credentials.js';
import { redialling, RETRY_INTERVAL } from './redial.js';
import { SetupError } from './setup-error.js';
import { throttled } from './throttled.js';
import { tlsAlert } from './tls-alert.js';
import { type NatsTlsFiles, tlsOf } from './tls.js';
import type { Notices } from '../telemetry/notices.js';

/** Where NATS is, and how to connect. */
export interface NatsServers extends NatsTlsFiles {
  readonly servers: readonly string[];
  /** A creds file. */
  readonly credentials: string | undefined;
}

/** An idle connection that is cut is noticed after two of these (milliseconds). The client's default is two minutes. */
const PING_INTERVAL = 4_000;
/** How long (milliseconds) one server may take until the connection is there. */
const CONNECT_TIMEOUT = 5_000;
/** While there is no connection, a start says so this often (milliseconds). */
const NOTICE_INTERVAL = 5_000;
/**
 * A start ends when it is refused this many times in a row. Once may be chance: a server that is too busy to take the user's
 * name in time refuses it as well.
 */
const REFUSALS = 3;

/**
 * Connects as soon as NATS can be reached, and says so while it can't. Once connected, it reconnects by itself, for ever.
 *
 * @throws SetupError if the settings are such that waiting does not help
 */
export async function connectPatiently(
  nats: NatsServers,
  notices: Notices,
): Promise<NatsConnection> {
  const setting = 'FEED_NATS_CREDENTIALS';
  const options = optionsOf(nats, setting);
  const where = `NATS at ${nats.servers.join(', ')}`;
  const warn = throttled((why) => notices.warn(why), NOTICE_INTERVAL, performance.now());
  let refusals = 0;
  for (;;) {
    try {
      return await connect(options);
    } catch (error) {
      const reason = await reasonOf(error, nats, options);
      const { message, isFinal } = connectFailure(reason, { setting, path: nats.credentials });
      refusals = isFinal ? refusals + 1 : 0;
      if (refusals === REFUSALS) throw new SetupError(`${where}: ${message}`);
      warn(`waiting for ${where}: not ready until it answers (${message})`);
      await sleep(RETRY_INTERVAL);
    }
  }
}

/**
 * Connects, or rejects within some seconds.
 *
 * @param setting the name of the setting that names the credentials, for errors
 * @throws SetupError
 */
export async function connectOnce(nats: NatsServers, setting: string): Promise<NatsConnection> {
  const options = optionsOf(nats, setting);
  try {
    return await connect(options);
  } catch (error) {
    throw new SetupError(connectFailure(error, { setting, path: nats.credentials }).message);
  }
}

/** Returns the reason of a failed connect(). The client library takes a refused certificate for a server that is silent. */
async function reasonOf(
  failure: unknown,
  nats: NatsServers,
  { tls }: ConnectionOptions,
): Promise<unknown> {
  if (!tls || !(failure instanceof TimeoutError)) return failure;
  const alerts = await Promise.all(nats.servers.map((url) => tlsAlert(url, nats)));
  return alerts.find((alert) => alert !== undefined) ?? failure;
}

function optionsOf(nats: NatsServers, setting: string): ConnectionOptions {
  const { servers, credentials } = nats;
  const tls = tlsOf(nats, servers);
  return {
    servers: [...servers],
    name: 'feed',
    timeout: CONNECT_TIMEOUT,
    maxReconnectAttempts: -1,
    // Else a user that is refused twice closes the connection for good, and nobody would connect again.
    ignoreAuthErrorAbort: true,
    ...redialling(),
    pingInterval: PING_INTERVAL,
    maxPingOut: 2,
    noAsyncTraces: true,
    ...(tls ? { tls } : {}),
    ...(credentials === undefined ? {} : { authenticator: userOf(credentials, setting) }),
  };
}
