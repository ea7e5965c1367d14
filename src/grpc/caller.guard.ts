import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { Callers, type Credentials } from '../auth/callers.js';
import type { Caller } from '../feed/caller.js';
import type { Call } from './transport/index.js';

/**
 * Finds out who makes a call, before its handler runs. Another guard may take its place (docs/security.md, "A guard of your
 * own"): it calls setCaller(), or throws.
 */
@Injectable()
export class CallerGuard implements CanActivate {
  constructor(private readonly callers: Callers) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const call = context.switchToRpc().getContext<Call>();
    setCaller(call, await this.callers.admit(call, credentialsOf(call)));
    return true;
  }
}

/** Returns what the client of a call has shown. */
export function credentialsOf({
  metadata,
  peerIdentity,
}: Pick<Call, 'metadata' | 'peerIdentity'>): Credentials {
  return { authorization: metadata.get('authorization').map(String), peerIdentity };
}

/** Says who makes a call. A guard calls it, because no handler serves a call of nobody. */
export function setCaller(call: Call, caller: Caller): void {
  call.caller = caller;
  if (caller.principal !== undefined) call.notes.principal = caller.principal;
}

/** Returns who makes a call. @throws Error if no guard has said it */
export function callerOf(call: Call): Caller {
  if (!call.caller) throw new Error(`no guard has said who calls ${call.method}`);
  return call.caller as Caller;
}
