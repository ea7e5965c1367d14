import { connect as connectTls } from 'node:tls';
import { type Endpoint, openSocket } from '../../grpc/connection.js';
import type { LoadedTls } from '../../grpc/tls.js';
import { codeOf, within } from './within.js';

/** The first bytes that an HTTP/2 client sends (RFC 9113, 3.4): a fixed text, and a SETTINGS frame, which is empty here. */
const HTTP2_PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);

const SETTINGS_FRAME = 4;
const FRAME_HEADER_BYTES = 9;
const TLS_ALERT = 0x15;

/** The protocol that a port speaks. `text` is the first line of an answer that is neither HTTP/2 nor TLS. */
export type Detected =
  | { readonly speaks: 'http2' | 'tls' | 'nothing' }
  | { readonly speaks: 'http1' | 'other'; readonly text: string };

/**
 * Returns the protocol in which a port answers a client that begins with HTTP/2, over TLS if `tls` is given. Node's HTTP/2 does
 * not show an answer in another protocol, so this looks at the bytes.
 */
export async function detectProtocol(
  endpoint: Endpoint,
  tls: LoadedTls | undefined,
  signal: AbortSignal,
): Promise<Detected> {
  const socket = openSocket(endpoint, tls);
  try {
    socket.write(HTTP2_PREFACE);
    const first = new Promise<Buffer | undefined>((resolve) => {
      socket.once('data', resolve);
      socket.once('error', () => resolve(undefined));
      socket.once('close', () => resolve(undefined));
    });
    const bytes = await within(first, signal).catch((error: unknown) => {
      if (signal.aborted) throw error;
      return undefined;
    });
    const detected = detectedIn(bytes);
    // A TLS server may close the connection without an alert, so a handshake is tried.
    if (detected.speaks === 'nothing' && !tls && (await speaksTls(endpoint, signal)))
      return { speaks: 'tls' };
    return detected;
  } finally {
    socket.on('error', () => {}).destroy();
  }
}

function detectedIn(bytes: Buffer | undefined): Detected {
  if (!bytes) return { speaks: 'nothing' };
  if (bytes.length >= FRAME_HEADER_BYTES && bytes[3] === SETTINGS_FRAME) return { speaks: 'http2' };
  if (bytes[0] === TLS_ALERT && bytes[1] === 3) return { speaks: 'tls' };
  const text = bytes
    .toString('latin1')
    .split(/[\r\n]/)[0]
    .replaceAll(/[^ -~]/g, '?')
    .slice(0, 60);
  return { speaks: text.startsWith('HTTP/1') ? 'http1' : 'other', text };
}

/** Tries a TLS handshake. The certificate does not matter, because nothing is sent over the connection. */
async function speaksTls({ host, port }: Endpoint, signal: AbortSignal): Promise<boolean> {
  const socket = connectTls({ host, port, rejectUnauthorized: false });
  try {
    const done = new Promise<boolean>((resolve) => {
      socket.once('secureConnect', () => resolve(true));
      // A server that answers with an alert speaks TLS as well.
      socket.once('error', (error) => resolve(/_ALERT_/.test(codeOf(error))));
      socket.once('close', () => resolve(false));
    });
    return await within(done, signal);
  } catch (error) {
    if (signal.aborted) throw error;
    return false;
  } finally {
    socket.on('error', () => {}).destroy();
  }
}
