import { once } from 'node:events';
import type { PeerCertificate, TLSSocket } from 'node:tls';
import { openSocket } from '../../grpc/connection.js';
import type { Examined } from './examined.js';
import { type Finding, failed, ok, skipped, warning } from './finding.js';
import { detectProtocol } from './first-bytes.js';
import { codeOf, millisecondsSince, TooLate, within } from './within.js';

/** A certificate with less than this many days left is worth a warning. */
const FEW_DAYS = 14;

/**
 * Makes a TLS handshake, and looks at the certificate. A bad certificate does not end this handshake, so that the check can say
 * whose it is. No call is made and no token is sent over this connection.
 */
export async function checkTls(examined: Examined): Promise<Finding> {
  const { endpoint, options, signal } = examined;
  if (!options.tls) return skipped('not asked for (--tls)');
  const start = performance.now();
  let socket: TLSSocket;
  let expectedName: string;
  try {
    const tls = await options.tls.load();
    expectedName = tls.serverName ?? endpoint.name;
    socket = openSocket(endpoint, tls, { rejectUnauthorized: false }) as TLSSocket;
  } catch (error) {
    return failed(`the certificates that were given can't be used (${codeOf(error)})`, [
      'The files of --ca, --cert and --key have to be PEM, and the key has to be that of the certificate.',
    ]);
  }
  try {
    await within(once(socket, 'secureConnect'), signal);
    examined.alpn = socket.alpnProtocol ?? false;
    return look(socket, expectedName, millisecondsSince(start));
  } catch (error) {
    if (signal.aborted) throw error;
    return await noHandshake(examined, error);
  } finally {
    socket.on('error', () => {}).destroy();
  }
}

function look(socket: TLSSocket, expectedName: string, milliseconds: number): Finding {
  const certificate = socket.getPeerCertificate();
  const names = namesOf(certificate);
  const ends = new Date(certificate.valid_to);
  const days = Math.floor((ends.getTime() - Date.now()) / 86_400_000);
  const date = ends.toISOString().slice(0, 10);
  const figures = {
    milliseconds,
    version: socket.getProtocol() ?? '',
    names: names.join(','),
    issuer: nameOf(certificate.issuer),
    validTo: ends.toISOString(),
    daysLeft: days,
  };
  const whose = `the certificate of ${names.join(', ')}, signed by ${figures.issuer}`;
  if (!socket.authorized && socket.authorizationError) {
    // Node's types say that this is an Error, but it is the code of one, such as CERT_HAS_EXPIRED.
    const problem = String(socket.authorizationError);
    const { detail, advice } = explain(problem, { expectedName, names, date, certificate });
    return failed(`${detail} (${problem}): ${whose}`, advice, figures);
  }
  if (days < FEW_DAYS) {
    const advice = ['Renew it on the server or the proxy that ends TLS, before clients fail.'];
    return warning(`${whose}, ends in ${days} days, on ${date}`, advice, figures);
  }
  return ok(`${figures.version}, ${whose}, until ${date} (${days} days)`, figures);
}

/** The values that the explanation of a bad certificate names. */
interface Seen {
  readonly expectedName: string;
  readonly names: readonly string[];
  readonly date: string;
  readonly certificate: PeerCertificate;
}

function explain(
  code: string,
  { expectedName, names, date, certificate }: Seen,
): { detail: string; advice: string[] } {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return {
        detail: `the certificate ended on ${date}`,
        advice: [
          'Renew it on the server or the proxy that ends TLS. If it is renewed there already, that process still has the old one: restart or reload it.',
          'If the date is wrong, look at the clock of this machine.',
        ],
      };
    case 'CERT_NOT_YET_VALID':
      return {
        detail: `the certificate begins on ${certificate.valid_from}`,
        advice: ['Look at the clock of this machine, and at that of the one that signed it.'],
      };
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return {
        detail: `the certificate is not for ${expectedName}`,
        advice: [
          `Connect by a name that the certificate has (${names.join(', ')}), or say which name to expect: --server-name ${names[0]}.`,
          `Or have a certificate made whose subjectAltName has ${expectedName}.`,
        ],
      };
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return {
        detail: 'the certificate is signed by nobody whom this machine trusts',
        advice: [
          'If it is your own authority, give its certificate: --ca FILE (PEM). A certificate that signs itself is its own authority.',
          'If a public authority signed it, the server sends its own certificate only: configure it with the whole chain.',
        ],
      };
    default:
      return {
        detail: 'the certificate is not good',
        advice: [
          'OpenSSL explains the code: https://docs.openssl.org/master/man1/openssl-verification-options/',
        ],
      };
  }
}

/** Finds out why the handshake failed. */
async function noHandshake(examined: Examined, error: unknown): Promise<Finding> {
  const code = error instanceof TooLate ? error.message : codeOf(error);
  const plain = await detectProtocol(examined.endpoint, undefined, examined.signal);
  if (plain.speaks === 'http2')
    return failed(`the server speaks HTTP/2 without TLS there (${code})`, [
      'Leave --tls out (and --ca, --cert, --key), or connect to the port of the proxy that ends TLS.',
    ]);
  if (plain.speaks === 'http1' || plain.speaks === 'other')
    return failed(`the server does not speak TLS there: it answers "${plain.text}" (${code})`, [
      'That is the port of another service. Feed has gRPC on port 50051 by default (FEED_GRPC_ADDRESS), and HTTP on 8080.',
    ]);
  if (/NO_APPLICATION_PROTOCOL/.test(code))
    return failed(`the server refuses HTTP/2 (ALPN, ${code})`, [ALPN_ADVICE]);
  if (/UNRECOGNIZED_NAME/.test(code))
    return failed(`the server has no certificate for that name (${code})`, [
      'Connect by the name that the server is configured for, or give it: --server-name NAME.',
    ]);
  if (/CERTIFICATE/.test(code))
    return failed(`the server does not accept this client's certificate (${code})`, [
      CLIENT_CERTIFICATE_ADVICE,
    ]);
  return failed(`the handshake failed (${code})`, [
    'Something listens there, but it does not complete a TLS handshake: is it the right port? If a proxy stands there, its log says why.',
  ]);
}

export const ALPN_ADVICE =
  'Let the proxy offer h2 by ALPN: Envoy `alpn_protocols: [h2]`, nginx `http2 on`, HAProxy `alpn h2`; on an AWS load balancer, a listener with protocol HTTPS and a target group of version gRPC.';

export const CLIENT_CERTIFICATE_ADVICE =
  'The server asks clients for a certificate: give one that its authority has signed, --cert FILE and --key FILE.';

/** Returns the names that a certificate is for: those of its subjectAltName, or else that of its subject. */
function namesOf({ subject, subjectaltname }: PeerCertificate): string[] {
  const all = subjectaltname?.split(', ').map((one) => one.replace(/^[^:]*:/, ''));
  return all ?? [nameOf(subject)];
}

function nameOf(subject: PeerCertificate['subject'] | undefined): string {
  return String(subject?.CN ?? subject?.O ?? 'nobody');
}
