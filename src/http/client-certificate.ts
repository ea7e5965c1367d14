import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { ForbiddenException } from '@nestjs/common';
import { verifiedCertificate } from '../tls/identity.js';

/** Probes can't present a certificate. Any other path demands one, also one that is written otherwise, such as /Healthz. */
const OPEN_PATHS: ReadonlySet<string | undefined> = new Set(['/healthz', '/readyz']);

/**
 * Refuses requests without a verified client certificate, except those of probes. An Express middleware for a server that asks
 * clients for a certificate and lets them in without one.
 */
export function demandCertificate(
  request: IncomingMessage,
  _response: unknown,
  next: (error?: unknown) => void,
): void {
  if (OPEN_PATHS.has(request.url) || verifiedCertificate(request.socket as TLSSocket)) next();
  else
    next(new ForbiddenException('a client certificate of an authority that Feed knows is needed'));
}
