import { beforeAll, describe, expect, test } from 'vitest';
import { Authority } from '../support/certificates.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { CALLS, type ClientCertificates, httpStatus } from './calls.js';

const directory: { path: string } = { path: '' };
let authority: Authority;
let other: Authority;

/** The services, and what clients may connect with. Both are made once, before all tests. */
const services: Record<string, ServiceProcess> = {};
let clients: Record<string, ClientCertificates>;

const ends: (() => void | Promise<void>)[] = [];
beforeAll(async () => {
  directory.path = temporaryDirectory((end) => ends.push(end));
  authority = new Authority(directory.path);
  other = new Authority(directory.path, 'another');
  const { cert, key } = authority.server();
  const expired = authority.server({ expired: true });
  const elsewhere = authority.server({ names: 'DNS:elsewhere' });
  const pair = { FEED_TLS_CERT: cert, FEED_TLS_KEY: key };
  const settings: Record<string, Record<string, string>> = {
    none: {},
    TLS: pair,
    mTLS: { ...pair, FEED_TLS_CLIENT_CA: authority.cert },
    'TLS, expired': { FEED_TLS_CERT: expired.cert, FEED_TLS_KEY: expired.key },
    'TLS, for another name': { FEED_TLS_CERT: elsewhere.cert, FEED_TLS_KEY: elsewhere.key },
  };
  for (const [name, each] of Object.entries(settings))
    services[name] = await ServiceProcess.start(
      { FEED_ENGINE: 'memory', FEED_HEALTH_ADDRESS: '127.0.0.1:0', ...each },
      (end) => ends.push(end),
    );
  const ca = authority.cert;
  clients = {
    'plain text': {},
    TLS: { ca },
    'TLS with another authority': { ca: other.cert },
    'its certificate': { ca, own: authority.client() },
    'a certificate of another authority': { ca, own: other.client() },
    'an expired certificate': { ca, own: authority.client({ expired: true }) },
  };
  return async () => {
    for (const end of ends.toReversed()) await end();
  };
});

type Cells = Record<string, string | number>;

/** Makes all calls to a service, on all its ports. */
async function callAll(service: ServiceProcess, certificates: ClientCertificates): Promise<Cells> {
  const cells: Cells = {};
  for (const [name, call] of Object.entries(CALLS))
    cells[name] = await call(service.grpcAddress, certificates);
  for (const path of ['/healthz', '/readyz', '/other'])
    cells[path] = await httpStatus(service.httpAddress, path, certificates);
  return cells;
}

/** The cells of a row whose gRPC calls end with one status and whose paths have these results. */
function row(grpc: string, probes: unknown, others: unknown): Record<string, unknown> {
  const calls = Object.fromEntries(Object.keys(CALLS).map((name) => [name, grpc]));
  return { ...calls, '/healthz': probes, '/readyz': probes, '/other': others };
}

/** The client's error, where the connection does not come about. */
const REFUSED = expect.stringMatching(/^[A-Z]+[A-Z_]+$/) as unknown;
const served = row('OK', 200, 404);
const refused = row('UNAVAILABLE', REFUSED, REFUSED);
/** HTTPS serves probes that have no good certificate, and nobody else. */
const onlyProbes = row('UNAVAILABLE', 200, 403);

describe.each([
  ['none', 'plain text', served],
  ['none', 'TLS', refused],
  ['none', 'its certificate', refused],
  ['TLS', 'plain text', refused],
  ['TLS', 'TLS', served],
  ['TLS', 'TLS with another authority', refused],
  ['TLS', 'its certificate', served],
  ['TLS', 'a certificate of another authority', served], // which nobody asks for
  ['TLS', 'an expired certificate', served],
  ['mTLS', 'plain text', refused],
  ['mTLS', 'TLS', onlyProbes],
  ['mTLS', 'TLS with another authority', refused],
  ['mTLS', 'its certificate', served],
  ['mTLS', 'a certificate of another authority', onlyProbes],
  ['mTLS', 'an expired certificate', onlyProbes],
  ['TLS, expired', 'TLS', refused],
  ['TLS, for another name', 'TLS', refused],
] as const)('a service with %s', (service, client, expected) => {
  test(`and a client with ${client}`, async () => {
    expect(await callAll(services[service], clients[client])).toEqual(expected);
  });
});

test.each(['none', 'TLS', 'mTLS'])(
  'a service with %s answers health in plain text on FEED_HEALTH_ADDRESS, and nothing else there',
  async (name) => {
    const { healthAddress } = services[name];
    const answers: Cells = {};
    for (const [method, call] of Object.entries(CALLS))
      answers[method] = await call(healthAddress, {});
    expect(answers).toEqual({
      Watch: 'UNIMPLEMENTED',
      UploadEvents: 'UNIMPLEMENTED',
      Chat: 'UNIMPLEMENTED',
      health: 'OK',
      reflection: 'UNIMPLEMENTED',
    });
  },
);
