import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { StreamApi } from '../../src/nats/stream-api.js';
import { StreamTail } from '../../src/nats/stream-tail.js';
import { NATS_SERVER, NatsServer } from '../support/nats.js';
import { eventually } from '../support/wait.js';

describe.skipIf(!NATS_SERVER)('the tail of a stream', () => {
  async function follow(next: () => Promise<number | undefined>) {
    const [server] = await NatsServer.start(1, { jetstream: '' });
    const connection = await server.connect();
    const api = new StreamApi(connection, 'S', { onConnection: () => {}, onRefusal: () => {} });
    await connection.request('$JS.API.STREAM.CREATE.S', JSON.stringify({ name: 'S' }), {
      timeout: 30_000,
    });
    const idle: number[] = [];
    const onIdle = (sequence: number): void => void idle.push(sequence);
    const tail = new StreamTail(api, { onMessage: () => {}, onIdle, next });
    onTestFinished(async () => {
      await tail.stop();
      await connection.close();
      await server.remove();
    });
    return idle;
  }

  test('asks where to begin once at a time, however long the answer takes', async () => {
    let asked = 0;
    const answer = Promise.withResolvers<number>();
    const idle = await follow(() => {
      asked++;
      return answer.promise;
    });
    await sleep(7_000); // A tail that gets nothing begins anew after 3 s.
    expect(asked).toBe(1);
    const answeredAt = performance.now();
    answer.resolve(1);
    await eventually(() => expect(idle).toContain(0));
    // After 3 s of silence, as of a machine that stands still, it may ask again.
    if (performance.now() - answeredAt < 2_500) expect(asked).toBe(1);
  });
});
