import type { Server, ServerOptions } from 'node:https';
import type { INestApplication, NestApplicationOptions } from '@nestjs/common';
import type { Logger } from 'pino';
import { PortCounts } from '../telemetry/port-counts.js';
import { logFailedHandshakes } from '../telemetry/refused.js';
import { type Certificates, HANDSHAKE_TIMEOUT } from '../tls/certificates.js';
import { demandCertificate } from './client-certificate.js';

/** A client without a certificate may connect, because probes have none: demandCertificate() says which requests need one. */
export function httpsOptions({
  context,
  demandsCertificate,
}: Certificates): NestApplicationOptions['httpsOptions'] {
  const options: ServerOptions = {
    ...context,
    handshakeTimeout: HANDSHAKE_TIMEOUT,
    requestCert: demandsCertificate,
    rejectUnauthorized: false,
  };
  // Nest passes them to node's https.createServer(), but knows only some of them.
  return options as NestApplicationOptions['httpsOptions'];
}

/** Has an application that was made with httpsOptions() follow the certificates, and demand those of clients. */
export function secureHttp(app: INestApplication, certificates: Certificates, log: Logger): void {
  const server = app.getHttpServer() as Server;
  certificates.onChange(() => server.setSecureContext(certificates.context));
  server.on('tlsClientError', logFailedHandshakes(log, app.get(PortCounts), 'HTTP'));
  if (certificates.demandsCertificate) app.use(demandCertificate);
}
