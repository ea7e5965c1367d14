import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

/** Returns the client's certificate, if one of the authorities has signed it and it is within its dates; undefined otherwise. */
export function verifiedCertificate(socket: TLSSocket): X509Certificate | undefined {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined;
  // Node has looked at its dates when the connection began.
  return certificate && certificate.validToDate.getTime() > Date.now() ? certificate : undefined;
}

/** Returns when (Date.now()) that certificate ends; undefined if there is none. */
export function expiryOf(socket: TLSSocket): number | undefined {
  return socket.authorized ? socket.getPeerX509Certificate()?.validToDate.getTime() : undefined;
}

/**
 * Returns who the client is by its verified certificate: the SPIFFE ID in it (`spiffe://example.org/ns/shop/sa/orders`), else its
 * common name (`orders`). Undefined if there is no such certificate, if it names several, or an ID that node can only quote: nobody is
 * guessed.
 */
export function identityOf(socket: TLSSocket): string | undefined {
  const certificate = verifiedCertificate(socket);
  if (!certificate) return undefined;
  const ids = spiffeIds(certificate.subjectAltName ?? '');
  if (ids.length > 0) return ids.length === 1 && !ids[0].startsWith('"') ? ids[0] : undefined;
  // Node gives an array where there are several.
  const name: unknown = certificate.toLegacyObject().subject.CN;
  const isName = typeof name === 'string' && name !== '';
  // An authority that checks SPIFFE IDs may let clients choose their common names.
  return isName && !name.startsWith(SPIFFE) ? name : undefined;
}

const SPIFFE = 'spiffe://';

/** Node writes `DNS:orders, URI:spiffe://example.org/orders`, and quotes a name with a comma: `URI:"spiffe://example.org/a\u002cb"`. */
function spiffeIds(subjectAltName: string): string[] {
  return subjectAltName
    .split(', ')
    .filter((name) => name.startsWith(`URI:${SPIFFE}`) || name.startsWith(`URI:"${SPIFFE}`))
    .map((name) => name.slice('URI:'.length));
}
