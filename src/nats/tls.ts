import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { TlsOptions } from '@nats-io/transport-node';
import { SetupError } from './setup-error.js';

/** Names PEM files: the authority that signed the servers' certificates, and Feed's own certificate and key. */
export interface NatsTlsFiles {
  readonly tlsCa: string | undefined;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
}

/**
 * Returns how TLS is to be spoken; undefined if no setting asks for it, which leaves it to the servers. The files are read
 * again for each connection.
 *
 * @throws SetupError if a file can't be used
 */
export function tlsOf(
  { tlsCa, tlsCert, tlsKey }: NatsTlsFiles,
  servers: readonly string[],
): TlsOptions | undefined {
  const files = [tlsCa, tlsCert, tlsKey];
  // The client library takes a URL that begins with tls: for one that may do without.
  const isRequired = servers.some((url) => url.startsWith('tls:'));
  if (!isRequired && files.every((file) => file === undefined)) return undefined;
  if (tlsCa !== undefined) checkCertificate('FEED_NATS_TLS_CA', tlsCa);
  if (tlsCert !== undefined) checkCertificate('FEED_NATS_TLS_CERT', tlsCert);
  if (tlsCert !== undefined && tlsKey !== undefined) {
    try {
      createSecureContext({ cert: readFileSync(tlsCert), key: readFileSync(tlsKey) });
    } catch (error) {
      throw new SetupError(
        `FEED_NATS_TLS_KEY: ${tlsKey} can't be used with the certificate ${tlsCert}: ${(error as Error).message}`,
      );
    }
  }
  return { caFile: tlsCa, certFile: tlsCert, keyFile: tlsKey };
}

function checkCertificate(setting: string, path: string): void {
  try {
    void new X509Certificate(readFileSync(path));
  } catch (error) {
    throw new SetupError(
      `${setting}: ${path} can't be used as a PEM file of a certificate: ${(error as Error).message}`,
    );
  }
}
