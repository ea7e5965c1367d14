import { type ServiceError, status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { Authority, type Pair } from '../support/certificates.js';
import { connect, errorInfo, failure, upload } from '../support/client.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { until, within } from '../support/wait.js';
import { channelCredentials } from './calls.js';
import { watchAll } from './served.js';

/** How long (seconds) a certificate lasts that ends during a test: a busy machine needs seconds to begin the calls. */
const SECONDS = 20;

async function serve() {
  const authority = new Authority(temporaryDirectory());
  const { cert, key } = authority.server();
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_TLS_CERT: cert,
    FEED_TLS_KEY: key,
    FEED_TLS_CLIENT_CA: authority.cert,
  });
  const as = (own: Pair) => {
    const credentials = channelCredentials({ ca: authority.cert, own });
    const client = connect(service.grpcAddress, {}, credentials);
    onTestFinished(() => client.close());
    return client;
  };
  return { service, authority, as };
}

const endingOf = ({ code, metadata }: ServiceError) => ({ code, ...errorInfo(metadata) });

test("a connection ends with its client's certificate, its calls say where to go on, and no other ends", async () => {
  const { authority, as } = await serve();
  const lasting = as(authority.client());
  const kept = watchAll(lasting);
  const end = Date.now() + SECONDS * 1_000;
  const client = as(authority.client({ seconds: SECONDS }));
  const watch = client.Watch({ topic: 'load', position: 1 });
  const watched = failure(watch);
  const chat = client.Chat();
  const chatted = failure(chat);
  const uploaded = new Promise<ServiceError | null>((resolve) => {
    const call = client.UploadEvents(resolve);
    call.on('error', () => {});
    call.write({ topic: 'load', body: '0' });
    call.write({ topic: 'load', body: '1' });
  });
  await until(() => kept.events.length === 2, 'the events');
  expect(Date.now(), 'the calls began in time').toBeLessThan(end);

  const ends = await within(Promise.all([watched, chatted, uploaded]), 'the ends', 60_000);
  expect(Date.now()).toBeGreaterThan(end - 1_000); // Certificates count in whole seconds.
  const expired = { code: status.UNAUTHENTICATED, reason: 'CERTIFICATE_EXPIRED' };
  expect(ends.map((error) => endingOf(error!))).toMatchObject([
    { ...expired, metadata: { cursor: kept.events[1].cursor } },
    expired,
    { ...expired, metadata: { received: '2' } },
  ]);

  // The client connects anew, and its certificate is not taken any more.
  const again = await upload(client, [{ topic: 'load', body: 'late' }]);
  expect(again.error?.code).toBe(status.UNAVAILABLE);
  expect((await upload(lasting, [{ topic: 'load', body: '2' }])).error).toBeUndefined();
  await until(() => kept.events.length === 3, 'an event on the other connection');
  expect(kept.error).toBeUndefined();
});
