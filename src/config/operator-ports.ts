/** FEED_HEALTH_ADDRESS and FEED_METRICS_ADDRESS have room for this many connections each. */
export const OPERATOR_PORT_CONNECTIONS = 16;

interface Connection {
  once(event: 'close', listener: () => void): unknown;
  destroy(): void;
}

/**
 * Returns a function that such a port calls with each new connection. Anybody may connect to the port. So that nobody can keep
 * probes or Prometheus out by holding connections, a new one closes the oldest when there are too many.
 */
export function keepNewest(): (connection: Connection) => void {
  const open = new Set<Connection>();
  return (connection) => {
    open.add(connection);
    connection.once('close', () => open.delete(connection));
    if (open.size <= OPERATOR_PORT_CONNECTIONS) return;
    const [oldest] = open;
    // Its 'close' comes later, and more connections may come before it: each of them closes one that is still open.
    open.delete(oldest);
    oldest.destroy();
  };
}
