import { constants, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';

/** The PEM files of TLS, by their paths. */
export interface TlsFiles {
  /** FEED_TLS_CERT: the service's certificate, and after it those between it and its authority. */
  readonly cert: string;
  /** FEED_TLS_KEY: the key of that certificate. */
  readonly key: string;
  /** FEED_TLS_CLIENT_CA: the authorities that sign clients' certificates. Undefined: clients need none. */
  readonly clientCa: string | undefined;
}

/** The files can't be used. The message names the file, its setting, and what is wrong. */
export class BadCertificatesError extends Error {}

/** What node's tls.createSecureContext() and setSecureContext() take. */
export interface TlsContext extends SecureContextOptions {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer | undefined;
}

export interface CheckedCertificates {
  readonly context: TlsContext;
  /** The service's own certificate. */
  readonly leaf: X509Certificate;
}

/**
 * TLS 1.2 and 1.3, with forward secrecy and authenticated encryption only. These are the suites that Mozilla's "intermediate"
 * configuration and HTTP/2 (RFC 9113, appendix A) both allow.
 */
const MODERN: SecureContextOptions = {
  minVersion: 'TLSv1.2',
  ciphers: [
    'TLS_AES_128_GCM_SHA256',
    'TLS_AES_256_GCM_SHA384',
    'TLS_CHACHA20_POLY1305_SHA256',
    'ECDHE-ECDSA-AES128-GCM-SHA256',
    'ECDHE-RSA-AES128-GCM-SHA256',
    'ECDHE-ECDSA-AES256-GCM-SHA384',
    'ECDHE-RSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-CHACHA20-POLY1305',
    'ECDHE-RSA-CHACHA20-POLY1305',
  ].join(':'),
  // No session is resumed: OpenSSL does not look at the client's certificate again then, even if it has ended since. So each
  // connection's certificate is checked.
  secureOptions: constants.SSL_OP_NO_TICKET,
};

/**
 * Returns the contents of the files: the certificate, the key and, if there is a file of them, clients' authorities.
 *
 * @throws BadCertificatesError
 */
export async function readCertificates({ cert, key, clientCa }: TlsFiles): Promise<Buffer[]> {
  const pair = [await read('FEED_TLS_CERT', cert), await read('FEED_TLS_KEY', key)];
  return clientCa === undefined ? pair : [...pair, await read('FEED_TLS_CLIENT_CA', clientCa)];
}

async function read(setting: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new BadCertificatesError(`${setting}: ${(cause as Error).message}`, { cause });
  }
}

/** Checks that what readCertificates() has read is whole and belongs together. @throws BadCertificatesError */
export function checkCertificates(
  [cert, key, ca]: readonly Buffer[],
  files: TlsFiles,
): CheckedCertificates {
  const [leaf] = certificatesIn(`FEED_TLS_CERT (${files.cert})`, cert);
  if (!leaf.checkPrivateKey(keyIn(`FEED_TLS_KEY (${files.key})`, key))) {
    throw new BadCertificatesError(
      `FEED_TLS_KEY (${files.key}) is not the key of the certificate in FEED_TLS_CERT (${files.cert})`,
    );
  }
  if (files.clientCa !== undefined) certificatesIn(`FEED_TLS_CLIENT_CA (${files.clientCa})`, ca);
  const context = { ...MODERN, cert, key, ca };
  try {
    createSecureContext(context);
  } catch (cause) {
    // For example, a key that is too short for OpenSSL's security level.
    throw new BadCertificatesError(
      `FEED_TLS_CERT (${files.cert}) can't be used: ${(cause as Error).message}`,
      { cause },
    );
  }
  return { context, leaf };
}

const BEGIN = '-----BEGIN CERTIFICATE-----';
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/**
 * Returns the certificates of a PEM file, at least one.
 *
 * OpenSSL would not say that a file is cut short: a chain may end anywhere in a BEGIN line, and node takes what it finds of
 * authorities up to the first error.
 */
function certificatesIn(what: string, pem: Buffer): X509Certificate[] {
  const text = pem.toString('latin1');
  const blocks = text.match(CERTIFICATE) ?? [];
  const lastLine = text.trimEnd().split('\n').at(-1)!;
  const isCutInLine = lastLine.startsWith('-') && !/^-----END [A-Z0-9 ]+-----$/.test(lastLine);
  if (isCutInLine || text.split(BEGIN).length - 1 !== blocks.length)
    throw new BadCertificatesError(`${what} is cut short`);
  if (blocks.length === 0) throw new BadCertificatesError(`${what} has no PEM certificate`);
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new BadCertificatesError(
        `${what} has a certificate that can't be read: ${(cause as Error).message}`,
        { cause },
      );
    }
  });
}

function keyIn(what: string, pem: Buffer): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    throw new BadCertificatesError(
      `${what} has no private key that can be read, in PEM and without a passphrase: ${(cause as Error).message}`,
      { cause },
    );
  }
}
