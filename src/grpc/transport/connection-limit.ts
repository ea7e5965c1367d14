import type { Http2Server } from 'node:http2';

export interface ConnectionLimit {
  /** How many connections may be open. Any more are closed at once. */
  readonly max: number;
  /** Called for each connection that was closed at once. */
  readonly onRefused: () => void;
}

/**
 * Returns a function that grpc-js.ts calls with each HTTP/2 server before it listens. The servers share the limit: grpc-js
 * makes one for each address of the host's name. Node's maxConnections of a server is what the others leave it.
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
