import { expect, test } from 'vitest';
import { scrape } from '../support/metrics.js';
import { runService } from '../support/service.js';
import { until } from '../support/wait.js';
import {
  callHeaders,
  DATA,
  GOAWAY,
  h2,
  headerFrames,
  PREFACE,
  RawSocket,
  SETTINGS,
} from './raw-socket.js';

test.each(['Chat', 'UploadEvents'])(
  'a client that says goodbye, breaks its connection and vanishes is gone, though its connection was to move: %s',
  async (method) => {
    const { grpcAddress, httpAddress } = await runService({
      FEED_ENGINE: 'memory',
      FEED_KEEPALIVE_TIME: '1s',
      FEED_KEEPALIVE_TIMEOUT: '1s',
      FEED_MAX_CONNECTION_AGE: '1s',
      FEED_MAX_CONNECTION_AGE_GRACE: '1s',
    });
    const connections = async (): Promise<number | undefined> =>
      (await scrape(httpAddress)).value('feed_connections');
    for (let i = 0; i < 5; i++) {
      const client = await RawSocket.connect(grpcAddress);
      const call = headerFrames(1, callHeaders(`/feed.v1.FeedService/${method}`));
      await client.send(PREFACE, h2(SETTINGS, 0, 0), call);
      // DATA on a stream that is idle is an error of the connection.
      await client.send(h2(GOAWAY, 0, 0, Buffer.alloc(8)), h2(DATA, 0, 9, 'x'));
      client.socket.destroy();
    }
    expect(await connections()).toBeGreaterThan(0);
    await until(async () => (await connections()) === 0, 'the end of the connections', 30_000);
  },
);
