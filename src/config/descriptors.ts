import { readFileSync } from 'node:fs';
import { OPERATOR_PORT_CONNECTIONS } from './operator-ports.js';

/** Descriptors for the event log's files, the event loop and the listening sockets (about 30), and for the operator's ports. */
const OWN_DESCRIPTORS = 32 + 2 * OPERATOR_PORT_CONNECTIONS;

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
 * Divides this process's descriptors between gRPC, HTTP and everything else, so that nothing ever fails with EMFILE. Each
 * connection takes one. If none were left, libuv would close each new connection of every port (uv__emfile_trick) without
 * a word to node: probes would fail, and nobody would know why.
 */
export function connectionLimits(descriptors = maxDescriptors()): ConnectionLimits {
  const connections = Math.max(descriptors - OWN_DESCRIPTORS, HTTP_SHARE);
  const http = Math.floor(connections / HTTP_SHARE);
  const grpc = Math.floor((connections * (HTTP_SHARE - 1)) / HTTP_SHARE);
  return { descriptors, http, grpc };
}

/** The soft limit of open files. At its start node raises it to the hard limit. */
function maxDescriptors(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    return Infinity; // Only Linux has /proc.
  }
}
