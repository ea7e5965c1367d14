import { BlockList, isIP } from 'node:net';
import type { Address, Config } from './config.js';

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** True if only this machine reaches the address. */
export function isLoopback({ host }: Address): boolean {
  if (host === 'localhost') return true;
  const version = isIP(host);
  return version !== 0 && LOOPBACK.check(host, version === 6 ? 'ipv6' : 'ipv4');
}

/**
 * Says what is open to everybody who reaches a port: a sentence for each, which names the setting that closes it. None if only
 * this machine reaches the ports, and none if FEED_INSECURE=allow says that this is meant.
 */
export function unsafeSettings(config: Config): string[] {
  const { grpcAddress, httpAddress, tls, isInsecureAllowed } = config;
  const exposed = [grpcAddress, httpAddress].filter((address) => !isLoopback(address));
  if (exposed.length === 0 || isInsecureAllowed) return [];
  const where = exposed.map(({ text }) => text).join(' and ');
  const problems: string[] = [];
  if (!tls)
    problems.push(
      `${where} can be reached from other machines, without TLS: whoever is on the way reads and changes what is sent. ` +
        'Set FEED_TLS_CERT and FEED_TLS_KEY, or FEED_INSECURE=allow if the network is to be trusted',
    );
  return problems;
}
