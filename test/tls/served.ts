import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import type { Pair } from '../support/certificates.js';
import type { FeedClient } from '../support/client.js';

/** Connects to a port by TLS, as a client that checks nothing. */
export function tlsTo(address: string, options: ConnectionOptions = {}): TLSSocket {
  const [host, port] = address.split(':');
  return connectTls({
    host,
    port: Number(port),
    rejectUnauthorized: false,
    ALPNProtocols: ['h2', 'http/1.1'],
    ...options,
  });
}

/** The serial number of the certificate that a port serves now. */
export async function servedSerial(address: string, own?: Pair): Promise<string> {
  const socket = tlsTo(
    address,
    own && { cert: readFileSync(own.cert), key: readFileSync(own.key) },
  );
  try {
    return await new Promise((resolve, reject) => {
      socket.once('secureConnect', () => resolve(socket.getPeerX509Certificate()!.serialNumber));
      socket.once('error', reject);
    });
  } finally {
    socket.on('error', () => {}).destroy();
  }
}

export const serialOf = ({ cert }: Pair): string =>
  new X509Certificate(readFileSync(cert)).serialNumber;

export interface Received {
  readonly events: Event[];
  error?: Error;
}

/** Watches the topic `load` from its first event on. */
export function watchAll(client: FeedClient): Received {
  const received: Received = { events: [] };
  const call = client.Watch({ topic: 'load', position: 1 });
  call.on('data', (event: Event) => void received.events.push(event));
  call.on('error', (error) => (received.error = error));
  return received;
}
