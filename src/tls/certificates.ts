import type { Notices } from '../telemetry/notices.js';
import {
  BadCertificatesError,
  checkCertificates,
  type CheckedCertificates,
  readCertificates,
  type TlsContext,
  type TlsFiles,
} from './check.js';

/**
 * The files are read this often (milliseconds). Reading three small files finds each kind of change: a write in place, a
 * rename, or Kubernetes' swap of a symbolic link two directories above, which watching a file would miss.
 */
const READ_INTERVAL = 1_000;

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
  /** Why the files were refused when they were last read; undefined if they were good. */
  private problem: string | undefined;
  private isProblemLogged = false;
  private isReading = false;
  private readonly timer: NodeJS.Timeout;

  /** Reads the files and follows them from then on. @throws BadCertificatesError */
  static async open(files: TlsFiles, notices: Notices): Promise<Certificates> {
    const pem = await readCertificates(files);
    return new Certificates(files, notices, checkCertificates(pem, files));
  }

  private constructor(
    private readonly files: TlsFiles,
    private readonly notices: Notices,
    private checked: CheckedCertificates,
  ) {
    this.logCertificate();
    this.timer = setInterval(() => void this.follow(), READ_INTERVAL).unref();
  }

  /** The newest good ones: another object after each change. */
  get context(): TlsContext {
    return this.checked.context;
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
    clearInterval(this.timer);
  }

  private async follow(): Promise<void> {
    if (this.isReading) return; // A file system that does not answer.
    this.isReading = true;
    try {
      const pem = await readCertificates(this.files);
      if (this.isCurrent(pem)) this.notePresent();
      else this.replace(checkCertificates(pem, this.files));
    } catch (error) {
      if (!(error instanceof BadCertificatesError)) throw error;
      this.refuse(error.message);
    } finally {
      this.isReading = false;
    }
  }

  private isCurrent({ cert, key, ca }: Pick<TlsContext, 'cert' | 'key' | 'ca'>): boolean {
    const { context } = this;
    const isSameCa = ca === undefined || ca.equals(context.ca!);
    return cert.equals(context.cert) && key.equals(context.key) && isSameCa;
  }

  private replace(checked: CheckedCertificates): void {
    this.checked = checked;
    this.problem = undefined;
    for (const listener of this.listeners) listener();
    this.logCertificate();
  }

  /** The files are those in use. */
  private notePresent(): void {
    if (this.problem !== undefined && this.isProblemLogged)
      this.notices.info('the files of TLS are the ones in use again');
    this.problem = undefined;
  }

  private refuse(problem: string): void {
    if (problem !== this.problem) {
      // Perhaps the files were read while they were being replaced. The next reading tells.
      this.problem = problem;
      this.isProblemLogged = false;
    } else if (!this.isProblemLogged) {
      this.isProblemLogged = true;
      this.notices.error(`TLS goes on with the last good certificate: ${problem}`);
    }
  }

  private logCertificate(): void {
    const { leaf } = this.checked;
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
