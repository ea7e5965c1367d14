import { connect as connectTls } from 'node:tls';
import { type Endpoint, openSocket, type TlsOptions } from '../../grpc/connection.js';
import { codeOf, within } from './within.js';

/** How HTTP/2 begins (RFC 9113, 3.4): a fixed text, and a SETTINGS frame, here an empty one. */
const HTTP2_PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
]);

const SETTINGS_FRAME = 4;
const FRAME_HEADER_BYTES = 9;
const TLS_ALERT = 0x15;

/** What a port speaks. `text` is the first line of an answer that is none of the others. */
export type Speech =
  | { readonly speaks: 'http2' | 'tls' | 'nothing' }
  | { readonly speaks: 'http1' | 'other'; readonly text: string };

/**
 * Says what a port answers when a client begins to speak HTTP/2, over TLS if it is given. Node's HTTP/2 hides an answer
 * that is none of HTTP/2, so this looks at the bytes.
 */
export async function listen(
  endpoint: Endpoint,
  tls: TlsOptions | undefined,
  signal: AbortSignal,
): Promise<Speech> {
  const socket = openSocket(endpoint, tls);
  try {
    socket.write(HTTP2_PREFACE);
    const first = new Promise<Buffer | undefined>((resolve) => {
      socket.once('data', resolve);
      socket.once('error', () => resolve(undefined));
      socket.once('close', () => resolve(undefined));
    });
    const bytes = await within(first, signal, 2_000).catch((error: unknown) => {
      if (signal.aborted) throw error;
      return undefined;
    });
    const speech = speechOf(bytes);
    // A TLS server may close the connection without an alert.
    if (speech.speaks === 'nothing' && !tls && (await speaksTls(endpoint, signal)))
      return { speaks: 'tls' };
    return speech;
  } finally {
    socket.on('error', () => {}).destroy();
  }
}

function speechOf(bytes: Buffer | undefined): Speech {
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

/** Tries a TLS handshake. Whose certificate it is does not matter here: nothing is sent over it. */
async function speaksTls({ host, port }: Endpoint, signal: AbortSignal): Promise<boolean> {
  const socket = connectTls({ host, port, rejectUnauthorized: false });
  try {
    const done = new Promise<boolean>((resolve) => {
      socket.once('secureConnect', () => resolve(true));
      // An alert is TLS as well.
      socket.once('error', (error) => resolve(/_ALERT_/.test(codeOf(error))));
      socket.once('close', () => resolve(false));
    });
    return await within(done, signal, 2_000);
  } catch (error) {
    if (signal.aborted) throw error;
    return false;
  } finally {
    socket.on('error', () => {}).destroy();
  }
}
