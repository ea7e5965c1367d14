import { expect, test } from 'vitest';
import { type Event, StartPosition } from '../../../src/gen/feed/v1/feed.js';
import { freeAddress } from '../../../test/support/ports.js';
import { runService, ServiceProcess, temporaryDirectory } from '../../../test/support/service.js';
import { eventually, until, upToThrice } from '../../../test/support/wait.js';
import { runFeed, startFeed } from './run-command.js';
import {
  answeringServer,
  callProxy,
  certificate,
  forgetfulProxy,
  idleProxy,
  shortLivedProxy,
  silentServer,
  tlsProxy,
} from './servers.js';

interface Check {
  readonly server: string;
  readonly check: string;
  readonly state: string;
  readonly detail: string;
  readonly figures?: Record<string, number | string>;
  readonly advice?: readonly string[];
}

interface Diagnosis {
  readonly code: number | null;
  readonly checks: readonly Check[];
  readonly of: (check: string) => Check;
  /** The checks that failed. */
  readonly failed: readonly string[];
}

async function diagnose(address: string, ...args: readonly string[]): Promise<Diagnosis> {
  const { code, stdout, stderr } = await runFeed([
    'doctor',
    '--json',
    '--address',
    address,
    ...args,
  ]);
  expect(stdout, stderr).not.toBe('');
  const checks = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Check);
  return {
    code,
    checks,
    of: (name) => checks.find(({ check }) => check === name)!,
    failed: checks.filter(({ state }) => state === 'failed').map(({ check }) => check),
  };
}

/** The checks that need more than a connection, in their order. */
const AFTER_HTTP2 = [
  'round-trip',
  'windows',
  'health',
  'authorization',
  'delivery',
  'deduplication',
  'idle',
  'idle-heartbeat',
];

test('a topic that is none is what to change, and not the time of the attempt', async () => {
  const { grpcAddress } = await runService();
  const { code, of, failed } = await diagnose(grpcAddress, '--quick', '--topic', 'a b');
  expect(code).toBe(1);
  expect(failed).toContain('authorization');
  expect(of('authorization')).toMatchObject({
    detail: expect.stringContaining('TOPIC_INVALID'),
    advice: [expect.stringMatching(/^Give a valid topic: --topic NAME/)],
  });
});

test('a healthy server passes every check, and holds 6 events more', async () => {
  const { grpcAddress, client } = await runService();
  let attempts = 0;
  // Where this process, which is the server, stands still for a second, heartbeats come too late.
  const checked = await eventually(async () => {
    const topic = `doctor.test-${++attempts}`;
    const { code, checks, of } = await diagnose(grpcAddress, '--idle', '3', '--topic', topic);
    expect(checks.filter(({ state }) => state !== 'ok')).toMatchObject([
      { check: 'tls', state: 'skipped' },
    ]);
    expect(code).toBe(0);
    expect(of('windows').figures).toMatchObject({ streamWindowBytes: 2 ** 20 });
    expect(of('deduplication').figures).toEqual({ windowMilliseconds: 120_000, ids: 1_000_000 });
    expect(of('delivery').figures).toMatchObject({ topic, durability: 'fsync' });
    expect(of('idle-heartbeat').figures!.heartbeats).toBeGreaterThanOrEqual(2);
    return topic;
  });

  const events: Event[] = [];
  const watch = client.Watch({
    topic: checked,
    position: StartPosition.START_POSITION_EARLIEST,
  });
  watch.on('data', (event: Event) => events.push(event)).on('error', () => {});
  await until(() => events.length === 6, 'the events of the checks');
  watch.cancel();
});

test('lines for people go to standard output, the count to standard error, and --quick is quick', async () => {
  const { grpcAddress } = await runService();
  const { code, stdout, stderr } = await runFeed(['doctor', '--address', grpcAddress, '--quick']);
  expect(code).toBe(0);
  expect(stdout).toMatch(new RegExp(`^${grpcAddress}\nok {7}name {14}127\\.0\\.0\\.1 is an IP`));
  expect(stdout).toMatch(/^skipped {2}idle watch +left out \(--quick\)$/m);
  expect(stdout).not.toContain('\u001b');
  expect(stderr).toBe('9 ok, 3 skipped\n');
});

test('where nothing listens, it says what to look at, and the rest is skipped', async () => {
  const { code, of, checks } = await diagnose(await freeAddress());
  expect(code).toBe(1);
  expect(of('tcp').detail).toContain('ECONNREFUSED');
  expect(of('tcp').advice!.join()).toContain('FEED_GRPC_ADDRESS');
  expect(of('tcp').advice!.join()).toContain('Kubernetes');
  expect(checks.slice(2).every(({ state }) => state === 'skipped')).toBe(true);
  expect(of('idle').detail).toBe("can't be tried without TCP");
});

test('a name that does not exist is named', async () => {
  // The answer comes from the DNS of this machine, which may lose a packet, and then something else is to be done.
  const { code, of, failed } = await upToThrice(
    () => diagnose('no-such-host.invalid:50051', '--quick'),
    (found) => String(found.of('name').advice).includes('--address'),
  );
  expect(code).toBe(1);
  expect(failed).toEqual(['name']);
  expect(of('name').advice!.join()).toContain('--address');
});

test('the HTTP port of the service is told from the gRPC port', async () => {
  const { httpAddress } = await runService();
  const { code, failed, of, checks } = await diagnose(httpAddress);
  expect(code).toBe(1);
  expect(failed).toEqual(['http2']);
  expect(of('http2').detail).toContain('HTTP/1.1 400 Bad Request');
  expect(of('http2').advice!.join()).toContain('50051');
  expect(checks.filter(({ state }) => state === 'skipped').map(({ check }) => check)).toEqual([
    'tls',
    ...AFTER_HTTP2,
  ]);
});

test('a port that takes connections and never answers is given up', async () => {
  const { code, failed, of } = await diagnose(await silentServer());
  expect(code).toBe(1);
  expect(failed).toEqual(['http2']);
  expect(of('http2').detail).toContain('no answer within 5 s');
});

test('the greeting of another service is shown without its control characters', async () => {
  const { failed, of } = await diagnose(await silentServer('SSH-2.0-other\u001b[2J\r\n'));
  expect(failed).toEqual(['http2']);
  expect(of('http2').detail).toContain('"SSH-2.0-other?[2J"');
});

test('the words of a server can not move the cursor of a terminal', async () => {
  const message = { 'grpc-status': 13, 'grpc-message': 'a%1b[2Jb' };
  const answer = { ':status': 200, 'content-type': 'application/grpc', ...message };
  const address = await answeringServer(answer);
  const { stdout } = await runFeed(['doctor', '--address', address]);
  expect(stdout).toContain('INTERNAL: a\\u001b[2Jb');
  expect(stdout).not.toContain('\u001b');
});

test('several servers are examined, each by itself', async () => {
  const { grpcAddress } = await runService();
  const closed = await freeAddress();
  const { code, checks } = await diagnose(`${grpcAddress},${closed}`, '--idle', '1');
  expect(code).toBe(1);
  const of = (name: string): Check[] => checks.filter(({ check }) => check === name);
  expect(of('tcp')).toMatchObject([
    { server: grpcAddress, state: 'ok' },
    { server: closed, state: 'failed' },
  ]);
  expect(of('idle')).toMatchObject([
    { server: grpcAddress, state: 'ok' },
    { server: closed, state: 'skipped' },
  ]);
});

test('dns:/// examines each address of the name', async () => {
  const { grpcAddress } = await runService();
  const port = grpcAddress.split(':')[1];
  const { of, checks } = await diagnose(`dns:///localhost:${port}`, '--quick');
  const addresses = String(of('name').figures!.addresses).split(',');
  expect(checks.filter(({ check }) => check === 'tcp')).toHaveLength(addresses.length);
  expect(
    checks.find(({ check, server }) => check === 'delivery' && server === grpcAddress)!.state,
  ).toBe('ok');
});

test('over TLS, the certificate is shown, and all else passes', async () => {
  const { grpcAddress } = await runService();
  const address = await tlsProxy(grpcAddress);
  // Where this process, which is the server, stands still for a second, heartbeats come too late.
  const { of } = await eventually(async () => {
    const found = await diagnose(address, '--idle', '1', '--ca', certificate('ca.pem'));
    expect(found.failed).toEqual([]);
    expect(found.code).toBe(0);
    return found;
  });
  expect(of('tls').figures).toMatchObject({
    version: 'TLSv1.3',
    names: 'localhost,127.0.0.1',
    issuer: 'Feed test authority',
  });
  expect(of('delivery').state).toBe('ok');
});

test.each([
  {
    name: 'of an unknown authority',
    args: ['--tls'],
    file: 'server',
    code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    advice: '--ca',
  },
  {
    name: 'that signs itself',
    args: ['--tls'],
    file: 'self-signed',
    code: 'DEPTH_ZERO_SELF_SIGNED_CERT',
    advice: '--ca',
  },
  {
    name: 'that has ended',
    args: ['--ca', certificate('expired.pem')],
    file: 'expired',
    code: 'CERT_HAS_EXPIRED',
    advice: 'Renew',
  },
  {
    name: 'of another name',
    args: ['--ca', certificate('other-name.pem')],
    file: 'other-name',
    code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    advice: '--server-name feed.example',
  },
])('a certificate $name fails, and nothing is sent', async ({ args, file, code, advice }) => {
  const address = await tlsProxy(await freeAddress(), { certificate: file });
  const { failed, of, code: exitCode } = await diagnose(address, ...args, '--token', 'secret');
  expect(exitCode).toBe(1);
  expect(failed).toEqual(['tls']);
  expect(of('tls').detail).toContain(code);
  expect(of('tls').advice!.join()).toContain(advice);
  expect(of('http2').state).toBe('skipped');
});

test('--server-name makes a certificate of another name good', async () => {
  const { grpcAddress } = await runService();
  const address = await tlsProxy(grpcAddress, { certificate: 'other-name' });
  const args = ['--ca', certificate('other-name.pem'), '--server-name', 'feed.example', '--quick'];
  const { failed, code } = await diagnose(address, ...args);
  expect(failed).toEqual([]);
  expect(code).toBe(0);
});

test('--tls to a server without TLS says to leave it out', async () => {
  const { grpcAddress } = await runService();
  const { failed, of } = await diagnose(grpcAddress, '--tls');
  expect(failed).toEqual(['tls']);
  expect(of('tls').detail).toContain('HTTP/2 without TLS');
  expect(of('tls').advice!.join()).toContain('Leave --tls out');
});

test('a TLS server without --tls says to add it', async () => {
  const { failed, of } = await diagnose(await tlsProxy(await freeAddress()));
  expect(failed).toEqual(['http2']);
  expect(of('http2').detail).toContain('speaks TLS');
  expect(of('http2').advice!.join()).toContain('--tls');
});

test('a TLS server that offers no h2 is told so', async () => {
  const address = await tlsProxy(await freeAddress(), { protocols: ['http/1.1'] });
  const { failed, of } = await diagnose(address, '--ca', certificate('ca.pem'));
  expect(failed).toEqual(['tls']);
  expect(of('tls').detail).toContain('NO_APPLICATION_PROTOCOL');
  expect(of('tls').advice!.join()).toContain('alpn_protocols');
});

test('a server that asks for a certificate says so, and takes a good one', async () => {
  const { grpcAddress } = await runService();
  const address = await tlsProxy(grpcAddress, { asksForCertificate: true });
  const ca = ['--quick', '--ca', certificate('ca.pem')];
  const without = await diagnose(address, ...ca);
  expect(without.failed).toEqual(['http2']);
  expect(without.of('http2').advice!.join()).toContain('--cert');
  const own = ['--cert', certificate('client.pem'), '--key', certificate('client.key')];
  expect((await diagnose(address, ...ca, ...own)).failed).toEqual([]);
});

test.each([
  {
    name: '404',
    answer: { ':status': 404, server: 'a-proxy' },
    detail: 'HTTP 404 from "a-proxy"',
    advice: 'no route',
  },
  { name: '415', answer: { ':status': 415 }, detail: 'HTTP 415', advice: 'grpc_pass' },
  { name: '502', answer: { ':status': 502 }, detail: 'HTTP 502', advice: 'h2c' },
  {
    name: '200, but as a web page',
    answer: { ':status': 200, 'content-type': 'text/html' },
    detail: 'text/html',
    advice: '--address',
  },
  {
    name: 'UNIMPLEMENTED',
    answer: { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': 12 },
    detail: 'UNIMPLEMENTED',
    advice: 'another service',
  },
  {
    name: 'UNAUTHENTICATED',
    answer: { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': 16 },
    detail: 'UNAUTHENTICATED',
    advice: 'FEED_TOKEN',
  },
  {
    name: 'PERMISSION_DENIED',
    answer: { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': 7 },
    detail: 'PERMISSION_DENIED',
    advice: '--topic',
  },
])('a server that answers $name is explained', async ({ answer, detail, advice }) => {
  const { code, failed, of } = await diagnose(await answeringServer(answer));
  expect(code).toBe(1);
  expect(failed).toEqual(['health', 'authorization']);
  expect(of('authorization').detail).toContain(detail);
  expect(of('authorization').advice!.join()).toContain(advice);
  expect(of('idle').state).toBe('skipped');
});

test('a server that takes no uploads of the caller has the rest examined', async () => {
  const { grpcAddress } = await runService();
  const denied = { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': 7 };
  const answers = { '/feed.v1.FeedService/UploadEvents': denied };
  const proxy = await callProxy(grpcAddress, { answers });
  const { code, of, failed } = await diagnose(proxy, '--idle', '1');
  expect(failed).toEqual([]);
  expect(code).toBe(0);
  expect(of('delivery')).toMatchObject({ state: 'skipped' });
  expect(of('delivery').detail).toContain('may not upload');
  expect(of('deduplication').state).toBe('skipped');
  expect(of('idle').detail).toContain('had not ended');
});

test('a server without a health service is still examined', async () => {
  const { grpcAddress } = await runService();
  const answers = { '/grpc.health.v1.Health/Check': { ':status': 404 } };
  const proxy = await callProxy(grpcAddress, { answers });
  const { code, of, failed } = await diagnose(proxy, '--quick');
  expect(failed).toEqual(['health']);
  expect(code).toBe(1);
  expect(of('delivery').state).toBe('ok');
});

test('a deduplication window that is off, or that a proxy drops, is a warning', async () => {
  const { grpcAddress } = await runService({ FEED_DEDUP_WINDOW: '0s' });
  const off = await diagnose(grpcAddress, '--quick');
  expect(off.code).toBe(0);
  expect(off.of('deduplication')).toMatchObject({ state: 'warning' });
  expect(off.of('deduplication').advice!.join()).toContain('FEED_DEDUP_WINDOW');
  const proxy = await callProxy(grpcAddress, { drops: ['feed-dedup-window'] });
  const dropped = await diagnose(proxy, '--quick');
  expect(dropped.code).toBe(0);
  expect(dropped.of('deduplication').advice!.join()).toContain('upgrade');
});

test('watches need their response headers, and a proxy that drops those is told', async () => {
  const { grpcAddress } = await runService();
  const proxy = await callProxy(grpcAddress, { drops: ['feed-head'] });
  const { code, failed, of } = await diagnose(proxy, '--quick');
  expect(code).toBe(1);
  expect(failed).toEqual(['authorization']);
  expect(of('authorization').advice!.join()).toContain('feed-head');
});

test('a server that drains says so', async () => {
  const settings = { FEED_DATA_DIR: temporaryDirectory(), FEED_DRAIN_DELAY: '60s' };
  const service = await ServiceProcess.start(settings);
  service.process.kill('SIGTERM');
  await eventually(async () => {
    const { code, of, failed } = await diagnose(service.grpcAddress, '--quick');
    expect(failed).toEqual(['health']);
    expect(code).toBe(1);
    expect(of('health').detail).toBe('NOT_SERVING');
    expect(of('health').advice!.join()).toContain('FEED_DRAIN_DELAY');
  });
});

/**
 * Checks idle watches over a proxy whose limit is 4 s, up to three times: where this process stands still for 2 s, heartbeats
 * come too late, and where the command stands still, it measures a watch from a later start.
 *
 * @param isWanted is asked about the idle watch of a diagnosis in which the wanted checks failed
 */
async function diagnosedIdle(
  proxy: string,
  wanted: readonly string[],
  isWanted: (idle: Check) => boolean = () => true,
) {
  const found = await upToThrice(
    () => diagnose(proxy, '--idle', '6'),
    ({ failed, of }) => failed.join() === wanted.join() && isWanted(of('idle')),
  );
  expect(found.failed).toEqual(wanted);
  return found;
}

test('an idle connection that a proxy closes lives with heartbeats', async () => {
  const { grpcAddress } = await runService();
  const proxy = await idleProxy(grpcAddress, 4_000);
  const secondsOf = ({ figures }: Check): number => Number(figures!.endedAfterSeconds);
  const { code, of } = await diagnosedIdle(proxy, ['idle'], (idle) => secondsOf(idle) >= 3.9);
  expect(code).toBe(1);
  expect(secondsOf(of('idle'))).toBeGreaterThanOrEqual(3.9);
  const advice = of('idle').advice!.join();
  for (const setting of [
    'heartbeat',
    'stream_idle_timeout',
    'grpc_read_timeout',
    'idle_timeout.timeout_seconds',
    'FEED_KEEPALIVE_TIME',
  ])
    expect(advice).toContain(setting);
});

test('a proxy that ends idle streams, whatever PINGs its connection has, is told so', async () => {
  const { grpcAddress } = await runService();
  const proxy = await callProxy(grpcAddress, { streamIdle: 4_000 });
  const { of } = await diagnosedIdle(proxy, ['idle']);
  expect(of('idle').detail).toContain('reset');
  expect(of('idle').advice!.join()).toContain('stream_idle_timeout');
  expect(of('idle').advice!.join()).not.toContain('FEED_KEEPALIVE_TIME');
});

test('a proxy that ends connections by their age is told from one that ends idle ones', async () => {
  const { grpcAddress } = await runService();
  const proxy = await shortLivedProxy(grpcAddress, 4_000);
  const adviceOf = ({ advice }: Check): string => advice!.join();
  const { of } = await diagnosedIdle(proxy, ['idle', 'idle-heartbeat'], (idle) =>
    adviceOf(idle).includes('max_connection_duration'),
  );
  expect(adviceOf(of('idle'))).toContain('max_connection_duration');
});

test('a proxy that forgets idle connections is found by an event that does not come', async () => {
  const { grpcAddress } = await runService();
  const proxy = await forgetfulProxy(grpcAddress, 4_000);
  const { of } = await diagnosedIdle(proxy, ['idle']);
  expect(of('idle').detail).toContain('looked alive');
  expect(of('idle').advice!.join()).toContain('NAT');
});

test('Ctrl-C ends it with a count', async () => {
  const { grpcAddress } = await runService();
  const command = startFeed(['doctor', '--address', grpcAddress]);
  await until(() => command.stdout.includes('deduplication'), 'the checks before the idle watches');
  command.process.kill('SIGINT');
  const { code, stderr } = await command.ended;
  expect(code).toBe(130);
  expect(stderr).toMatch(/^ended before all was checked: 9 ok, 1 skipped\n$/m);
});

test('a reader that goes away ends it without a word', async () => {
  const { grpcAddress } = await runService();
  const command = startFeed(['doctor', '--address', grpcAddress, '--idle', '2']);
  await until(() => command.stdout.includes('deduplication'), 'the checks before the idle watches');
  command.process.stdout!.destroy();
  const { code, stderr } = await command.ended;
  expect(code).toBe(0);
  expect(stderr.replaceAll(/.*idle watches, .* left .*\n/g, '')).toBe(''); // but for its progress
});

test('a bad --idle is refused', async () => {
  expect((await runFeed(['doctor', '--idle', 'soon'])).code).toBe(64);
});
