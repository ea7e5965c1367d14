import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import type { ConnectionLimits } from '../config/descriptors.js';
import { atMostOnceAMinute } from './once-a-minute.js';
import type { Port, PortCounts } from './port-counts.js';

/** The service warns at its start if it has room for fewer gRPC connections than this. */
const FEW_CONNECTIONS = 1_000;

const HOW_TO_RAISE = 'Raise the limit of open files (ulimit -n, LimitNOFILE of systemd)';

/** Logs a warning if this process may open so few files that it will soon refuse clients. */
export function warnOfFewDescriptors(log: Logger, { descriptors, grpc }: ConnectionLimits): void {
  if (grpc < FEW_CONNECTIONS)
    log.warn(
      { limit: descriptors },
      `there is room for ${grpc} gRPC connections only. ${HOW_TO_RAISE}`,
    );
}

/**
 * Returns a function that the port calls for each connection that it refuses, and that counts them. It logs at most one line
 * a minute, with the number of refused connections since the last line.
 *
 * @param max the number of connections beyond which the port refuses more
 * @param howToRaise what an operator can do, as a sentence without its full stop
 */
export function logRefused(
  log: Logger,
  counts: PortCounts,
  port: Port,
  max: number,
  { descriptors }: ConnectionLimits,
  howToRaise = HOW_TO_RAISE,
): () => void {
  const report = atMostOnceAMinute((refused) =>
    log.warn(
      { limit: descriptors, refused },
      `${port} refuses connections beyond ${max}. ${howToRaise}`,
    ),
  );
  return () => {
    counts.refusedConnections[port]++;
    report();
  };
}

/**
 * Returns a function that the port calls for each TLS handshake that fails, and that counts them. It logs at most one line a
 * minute: how many failed since the last line, and why the newest did.
 */
export function logFailedHandshakes(
  log: Logger,
  counts: PortCounts,
  port: Port,
): (error: NodeJS.ErrnoException, socket: TLSSocket) => void {
  let newest = '';
  const report = atMostOnceAMinute((failed) =>
    log.warn({ failed }, `${port}: TLS handshakes fail, the last one ${newest}`),
  );
  return (error, socket) => {
    // Node's types say that this is an Error, but it is the code of one, such as CERT_HAS_EXPIRED.
    const unauthorized = socket.authorizationError as unknown as string | undefined;
    // A client that only connects and goes away, as load balancers do to see whether a port is open.
    if (!unauthorized && error.code === 'ECONNRESET') return;
    const why = unauthorized
      ? `for the client's certificate (${unauthorized})`
      : `with ${error.code ?? error.message}`;
    // Node has closed the socket of a bad certificate, and its address is gone.
    newest = socket.remoteAddress ? `${why}, from ${socket.remoteAddress}` : why;
    counts.failedHandshakes[port]++;
    report();
  };
}
