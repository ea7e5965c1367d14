import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { withoutBrackets } from '../config/loopback.js';
import type { Config } from '../config/config.js';

/** Nobody can register a name below one of these, so no page from outside comes from one. */
const PRIVATE_ENDS = [
  'localhost',
  'cluster.local',
  'svc',
  'internal',
  'lan',
  'home.arpa',
  'test',
] as const;

/** Says whether a host (without port) is one by which this service is meant, and that no stranger can point at it (docs/http.md, "Browsers"). */
export class OwnHosts {
  private readonly names: ReadonlySet<string>;

  constructor({ httpAddress, httpOrigins }: Pick<Config, 'httpAddress' | 'httpOrigins'>) {
    const listed = httpOrigins.map((origin) => new URL(origin).hostname);
    this.names = new Set([httpAddress.host.toLowerCase(), hostname().toLowerCase(), ...listed]);
  }

  has(host: string): boolean {
    const name = host.toLowerCase().replace(/\.$/, '');
    if (this.names.has(name) || isIP(withoutBrackets(name)) !== 0) return true;
    return !name.includes('.') || PRIVATE_ENDS.some((end) => name.endsWith(`.${end}`));
  }
}
