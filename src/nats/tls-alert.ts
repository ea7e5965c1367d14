import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp, isIP } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { withoutBrackets } from '../config/loopback.js';
import type { NatsTlsFiles } from './tls.js';

const DEFAULT_PORT = 4222;
const TIMEOUT = 2_000;

/**
 * Returns the error by which a server ends a TLS connection after the handshake, as it does where it refuses the client's
 * certificate; undefined if it does not. The client library takes such an end for silence.
 */
export async function tlsAlert(url: string, files: NatsTlsFiles): Promise<Error | undefined> {
  const read = (path: string | undefined) => (path === undefined ? undefined : readFileSync(path));
  const { hostname, port } = new URL(url);
  const host = withoutBrackets(hostname);
  const signal = AbortSignal.timeout(TIMEOUT);
  const socket = connectTcp(Number(port) || DEFAULT_PORT, host);
  // What comes after once() has settled is of no interest, but without a listener it would end the process.
  socket.on('error', () => {});
  try {
    // The server speaks first: INFO. TLS begins after that.
    await once(socket, 'data', { signal });
    const secure = connectTls({
      socket,
      servername: isIP(host) ? '' : host,
      ca: read(files.tlsCa),
      cert: read(files.tlsCert),
      key: read(files.tlsKey),
    });
    secure.on('error', () => {});
    const [error] = (await once(secure, 'error', { signal })) as [Error];
    return error;
  } catch {
    return undefined;
  } finally {
    socket.destroy();
  }
}
