import { lookup } from 'node:dns';
import { connect, isIP, type LookupFunction, type Socket } from 'node:net';

/**
 * If no socket has connected this many milliseconds after the address is known, another one tries, too. A Kubernetes Service
 * assigns each new connection to a pod and never changes that. If that pod has just gone, the connection gets no answer, however
 * often the kernel asks again, while the next connection is assigned to another pod.
 */
const NEXT_AFTER = 1_000;

/**
 * Connects by TCP, and resolves with the first socket that connects. The others are closed. Of all calls for one host, one lookup at
 * most is pending.
 *
 * @throws the error of the first socket that fails, or the signal's reason once it aborts
 */
export function dial(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const sockets = new Set<Socket>();
    let timer: NodeJS.Timeout | undefined;
    const end = (): void => {
      clearInterval(timer);
      signal.removeEventListener('abort', onAbort);
      for (const socket of sockets) socket.destroy();
    };
    const fail = (error: Error): void => {
      end();
      reject(error);
    };
    const onAbort = (): void => fail(signal.reason as Error);
    const start = (): void => {
      const socket = connect({ host, port, lookup: sharedLookup });
      sockets.add(socket);
      socket.on('error', fail);
      socket.once('lookup', () => {
        if (!socket.destroyed) repeat();
      });
      socket.once('connect', () => {
        socket.off('error', fail);
        sockets.delete(socket);
        end();
        resolve(socket);
      });
    };
    const repeat = (): void => void (timer ??= setInterval(start, NEXT_AFTER));
    if (isIP(host)) repeat();
    signal.addEventListener('abort', onAbort);
    start();
    if (signal.aborted) onAbort();
  });
}

type LookupCallback = Parameters<LookupFunction>[2];

/** The callbacks that wait for a pending lookup, by its host and options. */
const pendingLookups = new Map<string, LookupCallback[]>();

/**
 * Looks a host up as node's lookup() does, but joins a pending lookup of the same host. Node can't cancel a lookup: while DNS gives no
 * answer, each one takes one of the few threads that node has for them, and keeps the process alive until it fails.
 */
const sharedLookup: LookupFunction = (host, options, callback) => {
  const key = JSON.stringify([host, options]);
  const pending = pendingLookups.get(key);
  if (pending) {
    pending.push(callback);
    return;
  }
  const callbacks = [callback];
  pendingLookups.set(key, callbacks);
  lookup(host, options, (...answer) => {
    pendingLookups.delete(key);
    for (const one of callbacks) one(...answer);
  });
};
