import type { Config } from './config.js';
import { isLoopback } from './loopback.js';

/**
 * Says what is open to everybody who reaches a port: a sentence for each, which names the setting that closes it. None if only
 * this machine reaches the ports, and none if FEED_INSECURE=allow says that this is meant.
 */
export function unsafeSettings(config: Config): string[] {
  const { grpcAddress, httpAddress, jwt, tls, isInsecureAllowed } = config;
  const exposed = [grpcAddress, httpAddress].filter((address) => !isLoopback(address.host));
  if (exposed.length === 0 || isInsecureAllowed) return [];
  const where = exposed.map(({ text }) => text).join(' and ');
  const problems: string[] = [];
  if (!tls)
    problems.push(
      `${where} can be reached from other machines, without TLS: whoever is on the way reads and changes what is sent. ` +
        'Set FEED_TLS_CERT and FEED_TLS_KEY, or FEED_INSECURE=allow if the network is to be trusted',
    );
  if (!jwt && !tls?.clientCa && !isLoopback(grpcAddress.host))
    problems.push(
      `${grpcAddress.text} is without authentication: whoever reaches it may read and write every topic. Set ` +
        'FEED_TLS_CLIENT_CA, or FEED_JWT_PUBLIC_KEY or FEED_JWT_JWKS_URL, or FEED_INSECURE=allow if that is meant',
    );
  return problems;
}
