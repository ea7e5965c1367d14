import type { Logger } from 'pino';
import type { ConnectionLimits } from '../config/descriptors.js';

/** Each port logs at most one line about refused connections in this time (milliseconds). */
const LOG_INTERVAL = 60_000;

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
 * Returns a function that the port calls for each connection that it refuses. It logs at most one line a minute, with
 * the number of refused connections since the last line.
 *
 * @param max the number of connections beyond which the port refuses more
 * @param howToRaise what an operator can do, as a sentence without its full stop
 */
export function logRefused(
  log: Logger,
  door: 'gRPC' | 'HTTP',
  max: number,
  { descriptors }: ConnectionLimits,
  howToRaise = HOW_TO_RAISE,
): () => void {
  let refused = 0;
  let isQuiet = false;
  const report = (): void => {
    log.warn(
      { limit: descriptors, refused },
      `${door} refuses connections beyond ${max}. ${howToRaise}`,
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
