import type { ConnectionOptions } from '@nats-io/transport-node';

/** Between two attempts at the same server, at least this time (milliseconds) passes. */
export const RETRY_INTERVAL = 200;

/**
 * Options that pace the attempts of a connection that is lost. The client library (3.4.0, dialLoop() in nats-core's protocol.js) waits
 * by the machine's clock until a server may be dialled again: if that clock is set back by an hour, for an hour. So its own wait
 * is always over, and each attempt is put off by a timer, in turn over all servers. (A connection that is closed during that time dials
 * once more. The process ends then.)
 */
export function redialling(): ConnectionOptions {
  let dialledAt = -Infinity;
  return {
    reconnectDelayHandler: () => -Infinity,
    reconnectToServer: (servers) => {
      const now = performance.now();
      const delay = Math.max(0, dialledAt + RETRY_INTERVAL / servers.length - now);
      dialledAt = now + delay;
      return { server: servers[0], delay };
    },
  };
}
