import { expect, test } from 'vitest';
import { runService } from '../support/service.js';

test('a body over 64 KiB is refused with 413', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const post = (bytes: number) =>
    fetch(`http://${httpAddress}/v1/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"token":"x"}'.padEnd(bytes),
    });
  expect((await post(64 * 1024)).status).toBe(200);
  expect((await post(64 * 1024 + 1)).status).toBe(413);
});
