import type { Http2Server } from 'node:http2';

export interface ConnectionLimit {
  /** How many may be open; one more is closed at once. */
  readonly max: number;
  /** Called for each that is closed at once. */
  readonly onRefused: () => void;
}

/**
 * Returns a function to call with each HTTP/2 server, before it listens; the limit is for all their connections together.
 * grpc-js makes one server for each address that the host's name stands for. One that can't listen has no connections.
 */
export function sharedLimit({ max, onRefused }: ConnectionLimit): (server: Http2Server) => void {
  const open = new Map<Http2Server, number>();
  let total = 0;
  const count = (server: Http2Server, change: number): void => {
    total += change;
    open.set(server, (open.get(server) ?? 0) + change);
    for (const [each, own] of open) each.maxConnections = max - (total - own);
  };
  return (server) => {
    count(server, 0);
    server.on('drop', onRefused);
    server.on('connection', (socket) => {
      count(server, 1);
      socket.once('close', () => count(server, -1));
    });
  };
}
