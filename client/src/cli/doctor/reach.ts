import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Address } from '../../grpc/addresses.js';
import { type Endpoint, openSocket } from '../../grpc/connection.js';
import { type Finding, failed, ok } from './finding.js';
import type { Examined } from './examined.js';
import { codeOf, millisecondsSince, TooLate, within } from './within.js';

/** Looks up the host of an address. `endpoints` are the servers of that address; none if the lookup failed. */
export async function findName(
  { host, port, isDns }: Address,
  signal: AbortSignal,
): Promise<{ readonly finding: Finding; readonly endpoints: readonly Endpoint[] }> {
  if (isIP(host))
    return {
      finding: ok(`${host} is an IP address`),
      endpoints: [{ host, port, name: host }],
    };
  const start = performance.now();
  try {
    const found = await within(lookup(host, { all: true }), signal);
    const addresses = found.map(({ address }) => address);
    const detail = `${host} is ${addresses.join(', ')} (${millisecondsSince(start)} ms)`;
    return {
      finding: ok(detail, {
        milliseconds: millisecondsSince(start),
        addresses: addresses.join(','),
      }),
      // Without dns:///, the client connects to the name, and takes the first of its addresses that answers.
      endpoints: isDns
        ? addresses.map((address) => ({ host: address, port, name: host }))
        : [{ host, port, name: host }],
    };
  } catch (error) {
    if (signal.aborted) throw error;
    return { finding: noName(host, error), endpoints: [] };
  }
}

function noName(host: string, error: unknown): Finding {
  const code = codeOf(error);
  if (code === 'ENOTFOUND')
    return failed(`no such name: ${host}`, [
      'Check the spelling of --address (or FEED_ADDRESS).',
      'A Kubernetes Service is found as <service> from its own namespace only; from others as <service>.<namespace>, and from outside of the cluster not at all (kubectl port-forward service/<service> 50051).',
    ]);
  return failed(`the lookup of ${host} failed: ${code}`, [
    'The DNS server of this machine does not answer, or answers with an error: look at /etc/resolv.conf, and at the VPN or the NetworkPolicy that should let DNS (port 53) through.',
  ]);
}

/** Opens a TCP connection, and closes it. */
export async function checkTcp({ endpoint, signal }: Examined): Promise<Finding> {
  const start = performance.now();
  const socket = openSocket(endpoint, undefined);
  try {
    await within(
      new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject)),
      signal,
    );
    const milliseconds = millisecondsSince(start);
    const detail = `connected to ${socket.remoteAddress} in ${milliseconds} ms`;
    return ok(detail, { milliseconds, address: socket.remoteAddress ?? '' });
  } catch (error) {
    if (signal.aborted) throw error;
    return noConnection(endpoint, error);
  } finally {
    socket.on('error', () => {}).destroy();
  }
}

function noConnection({ port }: Endpoint, error: unknown): Finding {
  const code = error instanceof TooLate ? 'ETIMEDOUT' : codeOf(error);
  switch (code) {
    case 'ECONNREFUSED':
      return failed(`nothing listens there (${code})`, [
        `Is Feed running on that machine, and is ${port} its gRPC port? Its log says "gRPC listens on".`,
        'Feed listens on 127.0.0.1 unless FEED_GRPC_ADDRESS says otherwise: for other machines and containers, set it to 0.0.0.0:50051.',
        'In Kubernetes: does the Service have this port, and a ready pod behind it? (kubectl get endpointslices)',
      ]);
    case 'ETIMEDOUT':
      return failed('the connection was neither taken nor refused (ETIMEDOUT)', [
        `Something drops the packets: look at firewalls, security groups and NetworkPolicies for port ${port}, and whether the machine is up.`,
      ]);
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return failed(`no way leads to that address (${code})`, [
        'Look at the routes of this machine, and whether a VPN is connected. An IPv6 address needs IPv6 on the whole way.',
      ]);
    default:
      return failed(`the connection failed (${code})`, [
        'Something between this machine and the server ends connections: look at firewalls and proxies.',
      ]);
  }
}
