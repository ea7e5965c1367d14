import type { SecureContextOptions, TLSSocket } from 'node:tls';
import { ServerCredentials } from '@grpc/grpc-js';
import type { Retirement } from './retirement.js';

/** The certificates that a server serves with. They may change while it runs. */
export interface ServerCertificates {
  /** What new connections are served with: options of node's tls.createSecureContext(). Another object after each change. */
  readonly context: SecureContextOptions & {
    readonly cert: Buffer;
    readonly key: Buffer;
    /** The authorities of clients' certificates. */
    readonly ca: Buffer | undefined;
  };
  /** True if a client without a good certificate gets no connection. */
  readonly demandsCertificate: boolean;
  /** Calls the listener whenever `context` has changed. */
  onChange(listener: () => void): void;
}

export interface ServerTls {
  readonly certificates: ServerCertificates;
  /** A connection whose TLS handshake takes longer (milliseconds) is closed. */
  readonly handshakeTimeout: number;
  /** Returns whom the verified certificate of a client names. Called once for each connection. */
  readonly identityOf: (socket: TLSSocket) => string | undefined;
  /** Returns when (Date.now()) the verified certificate of a client ends; undefined without one. Called once, too. */
  readonly expiryOf: (socket: TLSSocket) => number | undefined;
  /** How a connection is retired at that time. */
  readonly onExpired: Retirement;
  /** Called for each connection whose handshake failed. */
  readonly onFailedHandshake: (error: Error, socket: TLSSocket) => void;
}

/** Returns grpc-js's credentials. The certificates in them are never served: createServer() puts newer ones in their place. */
export function serverCredentials(tls: ServerTls | undefined): ServerCredentials {
  if (!tls) return ServerCredentials.createInsecure();
  const { context, demandsCertificate } = tls.certificates;
  const pair = { cert_chain: context.cert, private_key: context.key };
  return ServerCredentials.createSsl(context.ca ?? null, [pair], demandsCertificate);
}
