import { withoutBrackets } from '../config/loopback.js';
import { EVERY_TOPIC } from '../wire/topic-pattern.js';
import { type Caller, requirePermission } from './caller.js';
import { FeedError } from './errors.js';

/** Someone who wants to see or do what operators may. */
export interface Administrator {
  readonly caller: Caller;
  /** The address that the call came from, with its port. */
  readonly peer: string;
}

/** The addresses of this machine's own clients. Not all of 127.0.0.0/8: Istio's sidecar connects from 127.0.0.6 for others. */
const OWN_ADDRESSES: ReadonlySet<string> = new Set(['127.0.0.1', '::1', '::ffff:127.0.0.1']);

/**
 * Throws if the caller may not administer a topic; with EVERY_TOPIC all of them, and without a topic any at all. Where the service
 * asks nobody who they are, only clients of its own machine may.
 *
 * @throws FeedError TOPIC_FORBIDDEN
 */
export function requireAdministrator({ caller, peer }: Administrator, topic?: string): void {
  if (caller.principal === undefined && !isOwn(peer))
    throw new FeedError(
      'TOPIC_FORBIDDEN',
      'without authentication, only clients of the same machine may administer: connect from there ' +
        '(kubectl port-forward does), or set up tokens or client certificates',
    );
  requirePermission(caller, 'admin', topic);
}

/** True if the caller may administer an open call that has a topic, or none yet. */
export function mayAdminister({ caller }: Administrator, topic = EVERY_TOPIC): boolean {
  return caller.may('admin', topic);
}

/** @param peer such as 127.0.0.1:50312, ::1:50312 or [::1]:50312 */
function isOwn(peer: string): boolean {
  return OWN_ADDRESSES.has(withoutBrackets(peer.slice(0, peer.lastIndexOf(':'))));
}
