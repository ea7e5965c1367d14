import type { Logger } from 'pino';
import type { ConnectionLimits } from '../config/descriptors.js';

/** The log says at most this often (milliseconds) that a door refuses connections. */
const SAY_INTERVAL = 60_000;

/** With room for fewer gRPC connections than this, the log says so at the start. */
const FEW = 1_000;

const RAISE = 'Raise the limit of open files (ulimit -n, LimitNOFILE of systemd)';

/** Logs a warning where the kernel lets this process open so few files that clients will soon be refused. */
export function warnOfFewDescriptors(log: Logger, { descriptors, grpc }: ConnectionLimits): void {
  if (grpc < FEW)
    log.warn({ limit: descriptors }, `there is room for ${grpc} gRPC connections only. ${RAISE}`);
}

/**
 * Makes what is to be called for each connection that a door refuses, because it has `max` of them.
 *
 * @returns it logs the first, and then how many there were in a minute
 */
export function logRefused(
  log: Logger,
  door: 'gRPC' | 'HTTP',
  max: number,
  { descriptors }: ConnectionLimits,
): () => void {
  let refused = 0;
  let next = 0;
  return () => {
    refused++;
    if (performance.now() < next) return;
    next = performance.now() + SAY_INTERVAL;
    log.warn(
      { limit: descriptors, refused },
      `${door} refuses connections beyond ${max}. ${RAISE}`,
    );
    refused = 0;
  };
}
