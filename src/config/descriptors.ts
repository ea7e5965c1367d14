import { readFileSync } from 'node:fs';

/** Descriptors kept for the event log's files, the event loop and the listening sockets; about 30 are open at rest. */
const OWN_DESCRIPTORS = 64;

/** One in eight connections is kept for the HTTP port. */
const HTTP_SHARE = 8;

export interface ConnectionLimits {
  /** How many files and sockets the kernel lets this process open; Infinity where that can't be known. */
  readonly descriptors: number;
  /** How many connections each door may have open. */
  readonly grpc: number;
  readonly http: number;
}

/** Nest's token for the process's ConnectionLimits. */
export const CONNECTION_LIMITS = Symbol('ConnectionLimits');

/**
 * Shares out the descriptors of this process, of which each connection takes one, so that none of its parts ever gets EMFILE.
 * Node says nothing of a connection that it can't take for want of one: libuv accepts and closes it (uv__emfile_trick), on
 * every port, and so probes fail and nobody knows why.
 */
export function connectionLimits(descriptors = maxDescriptors()): ConnectionLimits {
  const connections = Math.max(descriptors - OWN_DESCRIPTORS, HTTP_SHARE);
  const http = Math.floor(connections / HTTP_SHARE);
  const grpc = Math.floor((connections * (HTTP_SHARE - 1)) / HTTP_SHARE);
  return { descriptors, http, grpc };
}

/** The soft limit, which node raises to the hard one when it starts. */
function maxDescriptors(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    return Infinity; // There is no /proc but on Linux.
  }
}
