import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Authority, type Pair } from '../support/certificates.js';
import {
  runService,
  type Running,
  ServiceProcess,
  temporaryDirectory,
} from '../support/service.js';
import { scrape } from '../support/metrics.js';
import { eventually, until, within } from '../support/wait.js';
import { CALLS, httpStatus } from './calls.js';
import { tlsTo } from './served.js';

interface Served {
  readonly service: Running;
  readonly authority: Authority;
  readonly other: Authority;
}

async function serve(settings: Record<string, string> = {}, isMutual = false): Promise<Served> {
  const directory = temporaryDirectory();
  const authority = new Authority(directory);
  const { cert, key } = authority.server();
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_TLS_CERT: cert,
    FEED_TLS_KEY: key,
    ...(isMutual && { FEED_TLS_CLIENT_CA: authority.cert }),
    ...settings,
  });
  return { service, authority, other: new Authority(directory, 'another') };
}

/** Makes a handshake, and resolves with the socket, or with the error's code. */
async function handshake(
  address: string,
  options: ConnectionOptions = {},
): Promise<TLSSocket | string> {
  const socket = tlsTo(address, options);
  onTestFinished(() => void socket.destroy());
  const result = new Promise<TLSSocket | string>((resolve) => {
    socket.once('secureConnect', () => resolve(socket));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
  return within(result, 'the end of a handshake');
}

const ports = ['grpcAddress', 'httpAddress'] as const;

describe.each(ports)('the port of %s', (port) => {
  test.each([
    ['TLS 1.3', { minVersion: 'TLSv1.3' }, 'TLSv1.3'],
    ['TLS 1.2', { maxVersion: 'TLSv1.2' }, 'TLSv1.2'],
  ] as const)('speaks %s', async (_, options, version) => {
    const { service } = await serve();
    const socket = (await handshake(service[port], options)) as TLSSocket;
    expect(socket.getProtocol()).toBe(version);
  });

  test.each([
    // OpenSSL gives older versions to clients that ask for no security level only.
    ['TLS 1.1', { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }],
    ['CBC', { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES256-SHA384' }],
    ['SHA-1', { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA' }],
  ] as const)('refuses %s', async (_, options) => {
    const { service } = await serve();
    expect(await handshake(service[port], options)).toMatch(/^ERR_SSL_TLSV1_ALERT|HANDSHAKE_FAIL/);
  });

  test('resumes no session, so that each connection is checked anew', async () => {
    const { service, authority } = await serve({}, true);
    const own = pem(authority.client());
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      let session: Buffer | undefined;
      const first = (await handshake(service[port], { maxVersion, ...own })) as TLSSocket;
      first.on('session', (ticket: Buffer) => (session = ticket));
      session = first.getSession();
      const second = (await handshake(service[port], { maxVersion, ...own, session })) as TLSSocket;
      expect(second.isSessionReused()).toBe(false);
    }
  });
});

const pem = ({ cert, key }: Pair) => ({ cert: readFileSync(cert), key: readFileSync(key) });

test('the certificate of a probe that comes by HTTPS is not taken from an earlier session', async () => {
  const { service, authority } = await serve({}, true);
  const [host, port] = service.httpAddress.split(':');
  let session: Buffer | undefined;
  const first = connectTls({ host, port: Number(port), ca: readFileSync(authority.cert) });
  onTestFinished(() => void first.destroy());
  first.on('session', (ticket: Buffer) => (session = ticket));
  first.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n');
  await once(first, 'data');
  session ??= first.getSession();
  const certificates = { ca: authority.cert };
  expect(await httpStatus(service.httpAddress, '/other', certificates, { session })).toBe(403);
});

test('failed handshakes are said in the log once a minute, with the reason', async () => {
  const { service, authority, other } = await serve({ FEED_METRICS_ADDRESS: '127.0.0.1:0' }, true);
  const warnings = (): string[] =>
    service.log
      .filter(({ level, failed }) => level === 40 && failed !== undefined)
      .map(({ msg }) => String(msg));
  const certificates = { ca: authority.cert, own: other.client() };
  expect(await CALLS.health(service.grpcAddress, certificates)).toBe('UNAVAILABLE');
  await eventually(() =>
    expect(warnings()).toEqual([
      expect.stringMatching(
        /^gRPC: TLS handshakes fail, the last one for the client's certificate \(UNABLE_TO/,
      ),
    ]),
  );
  const failed = async (): Promise<number> =>
    (await scrape(service.metricsAddress!)).value('feed_tls_handshakes_failed_total', {
      port: 'grpc',
    })!;
  const before = await failed();
  await handshake(service.grpcAddress, { ...pem(authority.client({ expired: true })) });
  expect(await CALLS.health(service.grpcAddress, {})).toBe('UNAVAILABLE');
  await until(async () => (await failed()) >= before + 2, 'the later failures', undefined, 50);
  expect(warnings()).toHaveLength(1);
  // Load balancers look whether a port is open: on another service, whose log has no line yet.
  const quiet = await serve();
  const [host, port] = quiet.service.grpcAddress.split(':');
  const socket = connectTcp(Number(port), host);
  await once(socket, 'connect');
  socket.end();
  await once(socket, 'close');
  expect(await CALLS.health(quiet.service.grpcAddress, { ca: quiet.authority.cert })).toBe('OK');
  expect(quiet.service.log.filter(({ level }) => level === 40)).toEqual([]);
});

describe('a start is refused with 78 and a message that names the setting', () => {
  const start = async (settings: Record<string, string>): Promise<string> => {
    const service = ServiceProcess.spawn({ FEED_ENGINE: 'memory', ...settings });
    expect(await service.ended()).toEqual({ code: 78, signal: null });
    return service.output.join('');
  };
  const files = () => {
    const directory = temporaryDirectory();
    const authority = new Authority(directory);
    return { authority, pair: authority.server(), other: authority.server() };
  };

  test('for a certificate without a key', async () => {
    const { pair } = files();
    expect(await start({ FEED_TLS_CERT: pair.cert })).toContain('FEED_TLS_KEY is not set');
  });

  test('for a key without a certificate', async () => {
    const { pair } = files();
    expect(await start({ FEED_TLS_KEY: pair.key })).toContain('FEED_TLS_CERT is not set');
  });

  test('for authorities of clients without TLS', async () => {
    const { authority } = files();
    expect(await start({ FEED_TLS_CLIENT_CA: authority.cert })).toMatch(
      /FEED_TLS_CLIENT_CA .*takes TLS: set FEED_TLS_CERT and FEED_TLS_KEY/,
    );
  });

  test('for a key of another certificate', async () => {
    const { pair, other } = files();
    const output = await start({ FEED_TLS_CERT: pair.cert, FEED_TLS_KEY: other.key });
    expect(output).toContain(`FEED_TLS_KEY (${other.key}) is not the key of the certificate`);
  });

  test('for authorities that are none', async () => {
    const { pair } = files();
    const settings = { FEED_TLS_CERT: pair.cert, FEED_TLS_KEY: pair.key };
    const output = await start({ ...settings, FEED_TLS_CLIENT_CA: pair.key });
    expect(output).toContain(`FEED_TLS_CLIENT_CA (${pair.key}) has no PEM certificate`);
  });
});

test('connections over TLS are counted, and closed ones make room', async () => {
  const directory = temporaryDirectory();
  const authority = new Authority(directory);
  const { cert, key } = authority.server();
  const settings = { FEED_ENGINE: 'memory', FEED_TLS_CERT: cert, FEED_TLS_KEY: key };
  // 64 descriptors are the process's own, and of 16 two are for HTTP.
  const service = ServiceProcess.shell('ulimit -n 80 && exec bin/feed-server', settings);
  await service.ready();
  const open = async (): Promise<boolean> => {
    const socket = await handshake(service.grpcAddress);
    if (typeof socket === 'string') return false;
    held.push(socket);
    return true;
  };
  const held: TLSSocket[] = [];
  for (let i = 0; i < 14; i++) expect(await open()).toBe(true);
  expect(await open()).toBe(false);
  for (const socket of held) socket.destroy();
  await until(open, 'room for a connection');
});

test('a start warns of ports without TLS that other machines reach', async () => {
  const exposed = { FEED_ENGINE: 'memory', FEED_GRPC_ADDRESS: '0.0.0.0:0' };
  const warningsOf = ({ log }: Running): unknown[] =>
    log.filter(({ level }) => level === 40).map(({ msg }) => msg);
  const service = await runService(exposed);
  expect(warningsOf(service)).toEqual([
    expect.stringMatching(/^0\.0\.0\.0:0 can be reached .*without TLS/),
    expect.stringMatching(/^0\.0\.0\.0:0 is without authentication/),
  ]);
  const allowed = await runService({ ...exposed, FEED_INSECURE: 'allow' });
  expect(warningsOf(allowed)).toEqual([]);
});
