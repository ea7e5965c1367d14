import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { runService } from '../../test/support/service.js';
import { connect, type WatchState } from '../src/index.js';
import { certificate, tlsProxy } from './cli/servers.js';

test('a live watch that a proxy answers with 502 begins again as a live watch', async () => {
  const requests: Buffer[] = [];
  const server = createServer();
  server.on('stream', (stream) => {
    stream.respond({ ':status': 502 }, { endStream: true });
    stream.on('error', () => {}).on('data', (chunk: Buffer) => requests.push(chunk));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const feed = connect(`127.0.0.1:${port}`);
  onTestFinished(() => {
    feed.close();
    server.close();
  });
  const states: WatchState[] = [];
  const stop = new AbortController();
  const onState = (state: WatchState): void => {
    states.push(state);
    if (states.length === 4) stop.abort();
  };
  for await (const event of feed.watch('orders', { signal: stop.signal, onState }))
    expect.fail(event.id);
  expect(states.map(({ name }) => name)).toEqual([
    'connecting',
    'reconnecting',
    'reconnecting',
    'reconnecting',
    'ended',
  ]);
  expect(states[1]).toMatchObject({ reason: { status: 'UNAVAILABLE' } });
  for (const request of requests) expect(request).toEqual(requests[0]);
});

test('a client without TLS is told that a server which closes the connection may expect it', async () => {
  const { grpcAddress } = await runService();
  const feed = connect(await tlsProxy(grpcAddress));
  onTestFinished(() => feed.close());
  const stop = new AbortController();
  const reasons: string[] = [];
  const onState = (state: WatchState): void => {
    if (state.name !== 'reconnecting') return;
    reasons.push(state.reason.message);
    stop.abort();
  };
  for await (const event of feed.watch('orders', { signal: stop.signal, onState }))
    expect.fail(event.id);
  expect(reasons).toEqual([expect.stringContaining('(does it expect TLS?)')]);
});

test('a missing client certificate is reported at once, not after the time to connect', async () => {
  const { grpcAddress } = await runService();
  const address = await tlsProxy(grpcAddress, { asksForCertificate: true });
  const feed = connect(address, {
    tls: { ca: readFileSync(certificate('ca.pem')) },
    connectTimeout: 50_000,
  });
  onTestFinished(() => feed.close());
  const states: WatchState[] = [];
  const stop = new AbortController();
  const onState = (state: WatchState): void => {
    states.push(state);
    if (state.name === 'reconnecting') stop.abort();
  };
  for await (const event of feed.watch('orders', { signal: stop.signal, onState }))
    expect.fail(event.id);
  expect(states[1]).toMatchObject({
    reason: { cause: { code: 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED' } },
  });
});
