import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** How many requests of a connection may be without their whole answers. */
const MOST_OPEN = 16;

/** Node publishes each request here, also one that it answers by itself, such as one without a host. */
const REQUESTS = 'http.server.request.start';

interface Started {
  readonly server: Server;
  readonly socket: Socket;
  readonly response: ServerResponse;
}

/**
 * Closes a connection whose client sends too many requests ahead of their answers (pipelining). Node bounds only the bytes of answers that wait, and
 * looks at them between chunks of 64 KiB, which have room for 3,600 requests.
 */
export function boundPipelining(ownServer: Server): void {
  const open = new WeakMap<Socket, number>();
  const count = (message: unknown): void => {
    const { server, socket, response } = message as Started;
    if (server !== ownServer) return;
    const requests = (open.get(socket) ?? 0) + 1;
    open.set(socket, requests);
    response.once('close', () => open.set(socket, open.get(socket)! - 1));
    if (requests > MOST_OPEN) socket.destroy();
  };
  subscribe(REQUESTS, count);
  ownServer.once('close', () => unsubscribe(REQUESTS, count));
}

/** Node goes on with the requests that came in the same chunk as one that has closed the connection. An Express middleware that serves none of them. */
export function leaveOutClosed(
  { socket }: IncomingMessage,
  _: ServerResponse,
  next: () => void,
): void {
  if (!socket.destroyed) next();
}
