import { connect, type Socket } from 'node:net';

/**
 * If no socket has connected after this many milliseconds, another one tries, too. A Kubernetes Service assigns each new
 * connection to a pod and never changes that. If that pod has just gone, the connection gets no answer, however often the
 * kernel asks again, while the next connection is assigned to another pod.
 */
const NEXT_AFTER = 1_000;

/**
 * Connects by TCP, and resolves with the first socket that connects. The others are closed.
 *
 * @throws the error of the first socket that fails, or the signal's reason once it aborts
 */
export function dial(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const sockets = new Set<Socket>();
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
      const socket = connect({ host, port });
      sockets.add(socket);
      socket.on('error', fail);
      socket.once('connect', () => {
        socket.off('error', fail);
        sockets.delete(socket);
        end();
        resolve(socket);
      });
    };
    const timer = setInterval(start, NEXT_AFTER);
    signal.addEventListener('abort', onAbort);
    start();
    if (signal.aborted) onAbort();
  });
}
