import { lookup } from 'node:dns/promises';
import { FeedError } from '../errors.js';
import type { Endpoint } from './connection.js';

const DEFAULT_PORT = 50051;

/** One address that the user gave. */
export interface Address {
  /** A name or an IP address, without the brackets of IPv6. */
  readonly host: string;
  readonly port: number;
  /** True for `dns:///`: each IP address of the name is a server of its own. */
  readonly isDns: boolean;
}

/**
 * Reads addresses: `host`, `host:port`, `[ipv6]:port` or `dns:///host:port`, in a list or separated by commas. The default
 * port is 50051.
 *
 * @throws TypeError for anything else, without the password that may stand before an `@`
 */
export function parseAddresses(addresses: string | readonly string[]): Address[] {
  const all = [addresses].flat().flatMap((one) => one.split(','));
  const named = all.map((one) => one.trim()).filter((one) => one !== '');
  if (named.length === 0) throw new TypeError('no address of a Feed server was given');
  // All parts are checked before any is named in an error: a password that has a comma stands in two of them.
  if (named.some((one) => one.includes('@')))
    throw new TypeError(
      'an address has an "@": leave out the user and the password, and give a token by the option token',
    );
  return named.map(parse);
}

function parse(text: string): Address {
  const match =
    /^(?<dns>dns:\/\/\/)?(?:\[(?<ipv6>[\da-fA-F:.]+)\]|(?<name>[^\s:/[\]]+))(?::(?<port>\d{1,5}))?$/.exec(
      text,
    );
  const port = Number(match?.groups!.port ?? DEFAULT_PORT);
  if (!match || port > 65_535)
    throw new TypeError(
      `"${text}" is not an address: use host:port, [ipv6]:port or dns:///host:port, and the option tls for TLS`,
    );
  const { dns, ipv6, name } = match.groups!;
  if (name && /^\d+$/.test(name))
    throw new TypeError(`"${text}" has no host: if it is a port, write 127.0.0.1:${name}`);
  return { host: ipv6 ?? name, port, isDns: dns !== undefined };
}

/**
 * Returns the servers of the addresses, as DNS names them now.
 *
 * @param known what they stood for last; a name that can't be looked up stands for that still, because its servers may well
 * be there
 * @throws FeedError UNAVAILABLE if a name has no address, and no other address is given
 */
export async function resolve(
  addresses: readonly Address[],
  known = new Map<Address, Endpoint[]>(),
): Promise<Endpoint[]> {
  let failure: FeedError | undefined;
  const found = await Promise.all(
    addresses.map(async (address): Promise<Endpoint[]> => {
      const { host, port, isDns } = address;
      if (!isDns) return [{ host, port, name: host }];
      try {
        const all = await lookup(host, { all: true });
        const endpoints = all.map((one) => ({ host: one.address, port, name: host }));
        known.set(address, endpoints);
        return endpoints;
      } catch (cause) {
        const code = (cause as NodeJS.ErrnoException).code;
        failure = new FeedError('UNAVAILABLE', `can't find ${host}: ${code}`, { cause });
        return known.get(address) ?? [];
      }
    }),
  );
  const endpoints = found.flat();
  if (endpoints.length === 0) throw failure!;
  return endpoints;
}
