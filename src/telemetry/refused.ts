import type { Logger } from 'pino';
import type { ConnectionLimits } from '../config/descriptors.js';

/** The log has at most one line in this time (milliseconds) about the connections that a port refuses. */
const LOG_INTERVAL = 60_000;

/** With room for fewer gRPC connections than this, the log says so at the start. */
const FEW_CONNECTIONS = 1_000;

const HOW_TO_RAISE = 'Raise the limit of open files (ulimit -n, LimitNOFILE of systemd)';

/** Logs a warning where the kernel lets this process open so few files that clients will soon be refused. */
export function warnOfFewDescriptors(log: Logger, { descriptors, grpc }: ConnectionLimits): void {
  if (grpc < FEW_CONNECTIONS)
    log.warn(
      { limit: descriptors },
      `there is room for ${grpc} gRPC connections only. ${HOW_TO_RAISE}`,
    );
}

/**
 * Returns a function to call for each refused connection. It logs at most one line a minute, with the count since the last
 * line.
 *
 * @param max how many connections the port may have, beyond which it refuses them
 */
export function logRefused(
  log: Logger,
  door: 'gRPC' | 'HTTP',
  max: number,
  { descriptors }: ConnectionLimits,
): () => void {
  let refused = 0;
  let isQuiet = false;
  const report = (): void => {
    log.warn(
      { limit: descriptors, refused },
      `${door} refuses connections beyond ${max}. ${HOW_TO_RAISE}`,
    );
    refused = 0;
    isQuiet = true;
    setTimeout(() => {
      isQuiet = false;
      if (refused > 0) report();
    }, LOG_INTERVAL).unref();
  };
  return () => {
    refused++;
    if (!isQuiet) report();
  };
}
