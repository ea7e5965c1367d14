import type { Config } from './config.js';
import { isLoopback, withoutBrackets } from './loopback.js';

/**
 * Says what is open to everybody who reaches a port, or the way to NATS: a sentence for each, which names the setting that
 * closes it. None if that is this machine only, and none if FEED_INSECURE=allow says that it is meant.
 */
export function unsafeSettings(config: Config): string[] {
  return config.isInsecureAllowed ? [] : [...exposedPorts(config), ...exposedNats(config)];
}

/** NATS is reached without TLS, and not on this machine alone. */
function exposedNats({ nats }: Config): string[] {
  const { servers, tlsCa, tlsCert } = nats;
  // With one of these, the connection always has TLS (src/nats/tls.ts).
  const hasTls =
    servers.some((url) => url.startsWith('tls:')) || tlsCa !== undefined || tlsCert !== undefined;
  if (hasTls) return [];
  const exposed = servers.filter((url) => !isLoopback(hostOf(url)));
  if (exposed.length === 0) return [];
  return [
    `FEED_NATS_SERVERS=${exposed.join(',')} can be reached without TLS: whoever is on the way reads and changes all events. ` +
      'Use tls:// in it and set FEED_NATS_TLS_CA, or FEED_INSECURE=allow if the network is to be trusted',
  ];
}

const hostOf = (url: string): string => withoutBrackets(new URL(url).hostname);

function exposedPorts({ grpcAddress, httpAddress, jwt, tls }: Config): string[] {
  const exposed = [grpcAddress, httpAddress].filter((address) => !isLoopback(address.host));
  if (exposed.length === 0) return [];
  const where = exposed.map(({ text }) => text).join(' and ');
  const problems: string[] = [];
  if (!tls)
    problems.push(
      `${where} can be reached from other machines, without TLS: whoever is on the way reads and changes what is sent. ` +
        'Set FEED_TLS_CERT and FEED_TLS_KEY, or FEED_INSECURE=allow if the network is to be trusted',
    );
  if (!jwt && !tls?.clientCa)
    problems.push(
      `${where} is without authentication: whoever reaches it may read and write every topic. Set ` +
        'FEED_TLS_CLIENT_CA, or FEED_JWT_PUBLIC_KEY or FEED_JWT_JWKS_URL, or FEED_INSECURE=allow if that is meant',
    );
  return problems;
}
