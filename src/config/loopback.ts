import { BlockList, isIP } from 'node:net';

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** Returns a host as node takes it: an address of IPv6 stands in brackets in a URL, as in [::1]:8080. */
export const withoutBrackets = (host: string): string => host.replace(/^\[|\]$/g, '');

/** True for a host that only processes of this machine reach. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true;
  const version = isIP(host);
  return version !== 0 && LOOPBACK.check(host, version === 6 ? 'ipv6' : 'ipv4');
}
