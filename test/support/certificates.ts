import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Paths of PEM files. */
export interface Pair {
  readonly cert: string;
  readonly key: string;
}

interface Wanted {
  /** Such as `/CN=orders`; empty for none. */
  readonly subject?: string;
  /** Such as `DNS:localhost,IP:127.0.0.1`; undefined for none. */
  readonly names?: string;
  readonly expired?: boolean;
  /** The certificate ends so many seconds from now; undefined for two days. */
  readonly seconds?: number;
}

const LOCAL = 'DNS:localhost,IP:127.0.0.1,IP:::1';

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** A certificate authority of a test, by openssl. Its files are in a directory of the test. */
export class Authority {
  private made = 0;

  constructor(
    private readonly directory: string,
    private readonly name = 'authority',
  ) {
    const own = ['-keyout', this.key, '-out', this.cert, '-subj', `/CN=${name}`, '-days', '2'];
    openssl(['req', '-x509', ...NEW_KEY, ...own]);
  }

  /** The path of its own certificate. */
  get cert(): string {
    return join(this.directory, `${this.name}.pem`);
  }

  private get key(): string {
    return join(this.directory, `${this.name}.key`);
  }

  /** Makes a certificate for a server on this machine. */
  server(wanted: Wanted = {}): Pair {
    return this.issue({ subject: '/CN=feed', names: LOCAL, ...wanted });
  }

  /** Makes a certificate for a client. */
  client(wanted: Wanted = {}): Pair {
    return this.issue({ subject: '/CN=orders', ...wanted });
  }

  private issue({ subject = '', names, expired = false, seconds }: Wanted): Pair {
    const base = join(this.directory, `${this.name}-${this.made++}`);
    const pair = { cert: `${base}.pem`, key: `${base}.key` };
    const request = `${base}.csr`;
    const own = ['-keyout', pair.key, '-out', request, '-subj', subject || '/'];
    openssl(['req', '-new', ...NEW_KEY, ...own]);
    const extensions = `${base}.ext`;
    writeFileSync(extensions, names ? `subjectAltName=${names}\n` : '');
    if (seconds !== undefined) {
      this.issueUntil(new Date(Date.now() + seconds * 1_000), request, pair.cert, extensions);
      return pair;
    }
    const signer = ['-CA', this.cert, '-CAkey', this.key, '-CAcreateserial'];
    const issued = ['-out', pair.cert, '-days', expired ? '-1' : '2', '-extfile', extensions];
    openssl(['x509', '-req', '-in', request, ...signer, ...issued]);
    return pair;
  }

  /** `openssl x509` counts in days. `openssl ca` takes a time, and needs a database. */
  private issueUntil(end: Date, request: string, cert: string, extensions: string): void {
    const config = join(this.directory, `${this.name}.cnf`);
    const index = join(this.directory, `${this.name}.index`);
    writeFileSync(index, '');
    const settings = {
      database: index,
      new_certs_dir: this.directory,
      rand_serial: 'yes',
      unique_subject: 'no',
      default_md: 'sha256',
      policy: 'any',
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`);
    const parts = ['[ca]', 'default_ca = own', '[own]', ...lines, '[any]', 'commonName = optional'];
    writeFileSync(config, `${parts.join('\n')}\n`);
    const signer = ['-config', config, '-cert', this.cert, '-keyfile', this.key];
    const until = end.toISOString().replaceAll(/[-:T]|\.\d+/g, '');
    const issued = ['-enddate', until, '-extfile', extensions, '-in', request, '-out', cert];
    openssl(['ca', '-batch', '-notext', ...signer, ...issued]);
  }
}

function openssl(args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: 'pipe' });
}

/**
 * A directory in which Kubernetes keeps a Secret: `tls.crt` and `tls.key` are symbolic links into `..data`, and that is one to
 * the newest files, which is replaced as a whole.
 */
export class SecretVolume {
  private versions = 0;

  constructor(
    private readonly directory: string,
    contents: Readonly<Record<string, string>>,
  ) {
    mkdirSync(directory, { recursive: true });
    this.put(contents);
    for (const name of Object.keys(contents))
      symlinkSync(join('..data', name), join(directory, name));
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Puts other files in the place of all. `contents` are file names with the paths of what they hold. */
  put(contents: Readonly<Record<string, string>>): void {
    const version = `..version-${this.versions++}`;
    mkdirSync(join(this.directory, version));
    for (const [name, path] of Object.entries(contents))
      writeFileSync(join(this.directory, version, name), readFileSync(path));
    symlinkSync(version, join(this.directory, '..data-new'));
    renameSync(join(this.directory, '..data-new'), join(this.directory, '..data'));
  }
}
