import type { ClientHttp2Session, Settings } from 'node:http2';
import { openSession } from '../../grpc/connection.js';
import type { Examined } from './examined.js';
import { type Finding, failed, ok, warning } from './finding.js';
import { detectProtocol, type Detected } from './first-bytes.js';
import { ALPN_ADVICE, CLIENT_CERTIFICATE_ADVICE } from './tls.js';
import { codeOf, millisecondsSince, TooLate, within } from './within.js';

/** HTTP/2's window of a stream and of a connection until the server sets another (RFC 9113, 6.9.2). */
const DEFAULT_WINDOW_BYTES = 65_535;

/** Node reports this as the limit of streams where the server has set none. */
const UNLIMITED_STREAMS = 2 ** 32 - 1;

/** Opens the connection that the checks after this one use, and waits for the server's settings. */
export async function checkHttp2(examined: Examined): Promise<Finding> {
  const { endpoint, options, signal } = examined;
  const start = performance.now();
  const session = openSession(endpoint, await options.tls?.load(), options.streamWindow);
  try {
    await within(
      new Promise<void>((resolve, reject) => {
        session.once('remoteSettings', () => resolve());
        session.once('error', reject);
        session.once('close', () => reject(new Error('closed')));
      }),
      signal,
    );
  } catch (error) {
    session.on('error', () => {}).destroy();
    if (signal.aborted) throw error;
    return await noHttp2(examined, error);
  }
  session.on('error', () => {});
  examined.session = session;
  const milliseconds = millisecondsSince(start);
  const detail = `settings came in ${milliseconds} ms`;
  if (options.tls && examined.alpn !== 'h2')
    return warning(
      `${detail}, but the server did not agree on h2 by ALPN`,
      ['This client does not insist on it, and others do, such as those of Go.', ALPN_ADVICE],
      { milliseconds },
    );
  return ok(detail, { milliseconds });
}

/** Finds out why no HTTP/2 settings came. */
async function noHttp2(examined: Examined, error: unknown): Promise<Finding> {
  const { endpoint, options, signal, alpn } = examined;
  const code = error instanceof TooLate ? error.message : codeOf(error);
  if (/CERTIFICATE/.test(code))
    return failed(`the server ended the connection (${code})`, [CLIENT_CERTIFICATE_ADVICE]);
  if (options.tls && alpn !== 'h2')
    return failed(`the server chose ${alpn || 'no protocol'} by ALPN, not h2 (${code})`, [
      ALPN_ADVICE,
    ]);
  return explain(await detectProtocol(endpoint, await options.tls?.load(), signal), code);
}

function explain(detected: Detected, code: string): Finding {
  switch (detected.speaks) {
    case 'tls':
      return failed('the server speaks TLS there', [
        'Add --tls, and --ca FILE if its certificate is of your own authority.',
      ]);
    case 'http1':
      return failed(`the server speaks HTTP/1.1 there: it answers "${detected.text}"`, [
        "That is an HTTP port, such as Feed's own for probes (8080, FEED_HTTP_ADDRESS). gRPC is on 50051 (FEED_GRPC_ADDRESS): use that one in --address.",
        'If a proxy stands there, let it speak HTTP/2 to clients: without TLS that is h2c with prior knowledge (nginx: `http2 on` for the listener; Envoy: `codec_type: HTTP2`).',
      ]);
    case 'other':
      return failed(`another service answers there: "${detected.text}"`, [
        'Check the port in --address. Feed has gRPC on 50051 by default (FEED_GRPC_ADDRESS).',
      ]);
    case 'nothing':
      return failed(`the connection was taken, and no HTTP/2 settings came (${code})`, [
        'Something listens there that does not speak HTTP/2, or a proxy whose server is away: check the port in --address, and the log of the proxy.',
        'If it is Feed, its process hangs or is stopped: look at /healthz on its HTTP port (8080).',
      ]);
    default:
      return failed(`the connection ended before the settings came (${code})`, [
        'The server took another connection just now, so try again. If it stays, its log says why it ends connections.',
      ]);
  }
}

/** The number of PINGs that are timed. checkRoundTrip() names the five results. */
const PINGS = 5;

/** Times PINGs, which the other end of the connection answers: the server, or a proxy in front of it. */
export async function checkRoundTrip(examined: Examined): Promise<Finding> {
  const times: number[] = [];
  try {
    for (let i = 0; i < PINGS; i++) times.push(await ping(examined.session!, examined.signal));
  } catch (error) {
    if (examined.signal.aborted) throw error;
    return failed(`PING: ${codeOf(error)}`, [
      'Whatever stands there breaks HTTP/2, which asks for an answer to each PING (RFC 9113, 6.7). The server and this client tell by PINGs whether the other one lives, and end connections without answers.',
    ]);
  }
  const [fastest, , median, , slowest] = times
    .toSorted((a, b) => a - b)
    .map((time) => Math.round(time * 100) / 100);
  examined.roundTrip = median;
  return ok(`${median} ms (median of ${PINGS} PINGs, ${fastest} to ${slowest})`, {
    milliseconds: median,
    fastestMilliseconds: fastest,
    slowestMilliseconds: slowest,
  });
}

function ping(session: ClientHttp2Session, signal: AbortSignal): Promise<number> {
  const answered = new Promise<number>((resolve, reject) => {
    const isSent =
      !session.destroyed &&
      session.ping((error, duration) => (error ? reject(error) : resolve(duration)));
    if (!isSent) reject(new Error('the connection is closed'));
  });
  return within(answered, signal);
}

/** Shows how much the server lets a client send ahead. Warns where that makes uploads slow. */
export async function checkWindows({ session, roundTrip }: Examined): Promise<Finding> {
  const settings: Settings = session!.remoteSettings;
  const { initialWindowSize = DEFAULT_WINDOW_BYTES, maxFrameSize = 16_384 } = settings;
  const streams = settings.maxConcurrentStreams ?? UNLIMITED_STREAMS;
  const connectionWindow = session!.state.remoteWindowSize ?? DEFAULT_WINDOW_BYTES;
  const window = Math.min(initialWindowSize, connectionWindow);
  const bytesPerSecond = Math.round((window / Math.max(roundTrip!, 0.1)) * 1_000);
  const figures = {
    streamWindowBytes: initialWindowSize,
    connectionWindowBytes: connectionWindow,
    maxFrameBytes: maxFrameSize,
    ...(streams < UNLIMITED_STREAMS && { maxStreams: streams }),
    uploadBytesPerSecond: bytesPerSecond,
  };
  const limit = streams < UNLIMITED_STREAMS ? `${streams} streams` : 'any number of streams';
  const detail = `${inKiB(initialWindowSize)} a stream, ${inKiB(connectionWindow)} the connection, ${limit}, frames up to ${inKiB(maxFrameSize)}`;
  if (window > DEFAULT_WINDOW_BYTES || bytesPerSecond > SLOW_BYTES_PER_SECOND)
    return ok(detail, figures);
  const rate = (bytesPerSecond / 1e6).toFixed(1);
  return warning(
    `${detail}: an upload sends at most ${rate} MB/s, a window for each round trip`,
    [
      'Raise the windows: FEED_STREAM_WINDOW and FEED_SESSION_WINDOW, or those of the proxy in between (Envoy: `initial_stream_window_size`, `initial_connection_window_size`; nginx: `http2_body_preread_size`).',
    ],
    figures,
  );
}

/** A warning is due if a window limits an upload to less than this. */
const SLOW_BYTES_PER_SECOND = 5e6;

function inKiB(bytes: number): string {
  return bytes >= 2 ** 20
    ? `${Math.round((bytes / 2 ** 20) * 10) / 10} MiB`
    : `${Math.round(bytes / 1_024)} KiB`;
}
