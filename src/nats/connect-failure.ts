import { AuthorizationError, UserAuthenticationExpiredError } from '@nats-io/transport-node';

/** Says why there is no connection. */
export interface ConnectFailure {
  readonly message: string;
  /** True if an operator has to change something. */
  readonly isFinal: boolean;
}

/** Node's codes for a certificate whose authority is not known. */
const UNKNOWN_AUTHORITY: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
]);

/**
 * Explains an error of the client library's connect().
 *
 * @param credentials the setting that names the user, and the file that it names, if it does
 */
export function connectFailure(
  error: unknown,
  credentials: { readonly setting: string; readonly path: string | undefined },
): ConnectFailure {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (error instanceof AuthorizationError || error instanceof UserAuthenticationExpiredError) {
    const { setting, path } = credentials;
    const what =
      path === undefined
        ? `the server asks who Feed is: ${setting} must name the creds file of a user`
        : `the server does not take the user of ${setting}, ${path}: it may be of another operator or account, revoked or expired`;
    return { message: `${what} (${message})`, isFinal: true };
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return {
      message: `the server's certificate is of another name: FEED_NATS_SERVERS must name the server as its certificate does, and by a name, not by an address (${message})`,
      isFinal: true,
    };
  if (code === 'CERT_HAS_EXPIRED')
    return { message: `the server's certificate has expired (${code})`, isFinal: true };
  if (UNKNOWN_AUTHORITY.has(code))
    return {
      message: `the server's certificate is of an unknown authority: FEED_NATS_TLS_CA must name the authority's file (${code})`,
      isFinal: true,
    };
  // OpenSSL's alerts from the server, such as ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED.
  if (/^ERR_SSL_\w+_ALERT_/.test(code))
    return {
      message: `the server refuses Feed's certificate: FEED_NATS_TLS_CERT and FEED_NATS_TLS_KEY must name one that it takes (${code})`,
      isFinal: true,
    };
  return { message, isFinal: false };
}
