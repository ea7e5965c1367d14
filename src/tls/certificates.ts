import { follow, type Followed } from '../config/followed.js';
import type { Notices } from '../telemetry/notices.js';
import {
  checkCertificates,
  type CheckedCertificates,
  readCertificates,
  type TlsContext,
  type TlsFiles,
} from './check.js';

/**
 * A connection whose TLS handshake takes longer (milliseconds) is closed. It is time enough for a slow link. Node's default of
 * two minutes would help clients that only hold connections open.
 */
export const HANDSHAKE_TIMEOUT = 15_000;

/**
 * The service's certificate, its key, and the authorities of clients. They follow the files: new ones hold for new connections,
 * and connections that are open stay as they are. Files that can't be used, such as half of a new pair, are refused with one
 * line in the log, and the last good ones stay until the files are good again.
 */
export class Certificates {
  private readonly listeners: (() => void)[] = [];
  /** Set by open() before anybody gets the object. */
  private followed!: Followed<CheckedCertificates>;

  /** Reads the files and follows them from then on. @throws BadCertificatesError */
  static async open(files: TlsFiles, notices: Notices): Promise<Certificates> {
    const certificates = new Certificates(files, notices);
    certificates.followed = await follow(
      () => readCertificates(files),
      (contents) => checkCertificates(contents, files),
      {
        onChange: () => certificates.replaced(),
        onRefused: (problem) =>
          notices.error(`TLS goes on with the last good certificate: ${problem}`),
        onRestored: () => notices.info('the files of TLS are the ones in use again'),
      },
    );
    certificates.logCertificate();
    return certificates;
  }

  private constructor(
    private readonly files: TlsFiles,
    private readonly notices: Notices,
  ) {}

  /** The newest good ones: another object after each change. */
  get context(): TlsContext {
    return this.followed.value.context;
  }

  /** True if clients need a certificate. */
  get demandsCertificate(): boolean {
    return this.files.clientCa !== undefined;
  }

  /** Calls the listener whenever `context` has changed. */
  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** Stops following the files. */
  close(): void {
    this.followed.close();
  }

  private replaced(): void {
    for (const listener of this.listeners) listener();
    this.logCertificate();
  }

  private logCertificate(): void {
    const { leaf } = this.followed.value;
    const now = Date.now();
    const whose = `the certificate of ${leaf.subjectAltName ?? leaf.subject}`;
    const until = leaf.validToDate.toISOString();
    if (leaf.validToDate.getTime() < now)
      this.notices.warn(`TLS has ${whose}, which ended on ${until}: clients will refuse it`);
    else if (leaf.validFromDate.getTime() > now)
      this.notices.warn(
        `TLS has ${whose}, which begins on ${leaf.validFromDate.toISOString()}: clients will refuse it until then`,
      );
    else this.notices.info(`TLS has ${whose}, until ${until}`);
  }
}
