import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common';
import { CallLimits, type Kind } from '../feed/call-limits.js';
import type { Call } from './transport/index.js';

const KINDS: Readonly<Record<string, Kind>> = {
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
    this.limits.claim(KINDS[call.method.slice(call.method.lastIndexOf('/') + 1)], call);
    return true;
  }
}
