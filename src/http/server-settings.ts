import type { Server } from 'node:http';
import type { Config } from '../config/config.js';

/** The kernel counts the time of a keepalive in whole seconds (milliseconds). For less than one, node leaves it at the kernel's two hours. */
const LEAST_KEEPALIVE = 1_000;

/** Sets a server up for requests and answers of any duration. Its headers still have to come within node's minute. */
export function allowLongRequests(server: Server, { keepaliveTime }: Config): void {
  // Node's limit of five minutes counts the body, too.
  server.requestTimeout = 0;
  // The kernel then asks a silent client for a sign of life, as HTTP/2's PING does for gRPC.
  const time = Math.max(LEAST_KEEPALIVE, keepaliveTime);
  server.on('connection', (socket) => socket.setKeepAlive(true, time));
}
