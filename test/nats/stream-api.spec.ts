import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { StreamApi } from '../../src/nats/stream-api.js';
import { NATS_SERVER, NatsServer } from '../support/nats.js';
import { standStill } from '../support/wait.js';

describe.skipIf(!NATS_SERVER)('a question to a stream', () => {
  test('is answered by what came while this process stood still for longer than an answer may take', async () => {
    const [server] = await NatsServer.start(1, { jetstream: '' });
    const connection = await server.connect();
    onTestFinished(async () => {
      await connection.close();
      await server.remove();
    });
    const api = new StreamApi(connection, 'S', { onConnection: () => {}, onRefusal: () => {} });
    const config = { name: 'S', subjects: ['s'], storage: 'memory', allow_direct: true };
    await connection.request('$JS.API.STREAM.CREATE.S', JSON.stringify(config), {
      timeout: 30_000,
    });
    const questions: (() => Promise<unknown>)[] = [
      () => api.append('s', Buffer.from('one')),
      () => api.publish([{ subject: 's', data: Buffer.from('two') }], { last: 1 }, 'batch'),
      () => api.messages('s', 1, 1_000),
      () => api.info(),
      () => api.message({ last_by_subj: 's' }),
    ];
    const outcomes: string[] = [];
    for (const question of questions) {
      server.signal('SIGSTOP'); // The question is to be written, and not answered yet.
      const answer = question().then(
        () => 'answered',
        (error: unknown) => String(error),
      );
      await turn();
      await turn();
      server.signal('SIGCONT');
      standStill(4_000);
      outcomes.push(await answer);
    }
    expect(outcomes).toEqual(questions.map(() => 'answered'));
  });
});
