import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { ForbiddenException } from '@nestjs/common';
import { certificateExpired } from '../feed/errors.js';
import { expiryOf, verifiedCertificate } from '../tls/identity.js';

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
  const socket = request.socket as TLSSocket;
  if (OPEN_PATHS.has(request.url) || verifiedCertificate(socket)) next();
  else if (expiryOf(socket) === undefined)
    next(new ForbiddenException('a client certificate of an authority that Feed knows is needed'));
  // It had one when the connection began. As each answer that comes before the request's end, this one closes the connection.
  else next(certificateExpired());
}
