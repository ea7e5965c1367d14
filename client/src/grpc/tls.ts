import { createSecureContext } from 'node:tls';
import { readSettingFile } from '../setting-file.js';

/** Certificates for TLS: PEM, or the paths of PEM files. */
export interface TlsOptions {
  /** The authorities that sign servers' certificates; those of the system by default. */
  readonly ca?: string | Buffer;
  /** The client's own certificate and its key, for a server that asks for one. */
  readonly cert?: string | Buffer;
  /** The key of `cert`. */
  readonly key?: string | Buffer;
  /**
   * Paths of PEM files in place of `ca`, `cert` and `key`. They are read again for each connection, so that a certificate can be
   * renewed while the client runs.
   */
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  /** The name that the server's certificate must have; the address's host by default. */
  readonly serverName?: string;
}

/** The certificates and the key of one connection, as PEM. */
export type LoadedTls = Pick<TlsOptions, 'ca' | 'cert' | 'key' | 'serverName'>;

/**
 * The certificates of a client. Files that can't be used, such as a certificate that was renewed before its key was, leave the
 * last good ones in use.
 */
export class ClientTls {
  private lastGood: LoadedTls | undefined;

  constructor(private readonly options: TlsOptions) {}

  /** Reads the files. Rejects with why they can't be used, if they never could. */
  async load(): Promise<LoadedTls> {
    try {
      this.lastGood = await read(this.options);
    } catch (error) {
      if (!this.lastGood) throw error;
    }
    return this.lastGood;
  }
}

async function read(options: TlsOptions): Promise<LoadedTls> {
  const { caFile, certFile, keyFile, serverName } = options;
  const loaded = {
    ca: caFile === undefined ? options.ca : await readPem(caFile),
    cert: certFile === undefined ? options.cert : await readPem(certFile),
    key: keyFile === undefined ? options.key : await readPem(keyFile),
    serverName,
  };
  createSecureContext({ ca: loaded.ca, cert: loaded.cert, key: loaded.key }); // throws, for example for a key of another certificate
  return loaded;
}

/** Node takes what it finds of authorities in a file that is cut short, so the end of each part is looked for here. */
async function readPem(path: string): Promise<Buffer> {
  const pem = await readSettingFile('a file of the option tls', path);
  const count = (mark: string): number => pem.toString('latin1').split(mark).length - 1;
  if (count('-----BEGIN ') === 0) throw new Error(`${path} has nothing in PEM`);
  if (count('-----BEGIN ') !== count('-----END ')) throw new Error(`${path} is cut short`);
  return pem;
}
