import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { CallLimits, type CallKind } from '../feed/call-limits.js';
import { methodName } from '../feed/live-calls.js';
import type { Call } from './transport/index.js';

const KINDS: Readonly<Record<string, CallKind>> = {
  Watch: 'watches',
  UploadEvents: 'uploads',
  Chat: 'chats',
};

/** Refuses calls beyond the limits, before their handlers run. */
@Injectable()
export class LimitGuard implements CanActivate {
  constructor(private readonly limits: CallLimits) {}

  canActivate(context: ExecutionContext): boolean {
    const call = context.switchToRpc().getContext<Call>();
    this.limits.claim(KINDS[methodName(call.method)], call);
    return true;
  }
}
