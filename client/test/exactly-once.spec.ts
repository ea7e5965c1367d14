import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { DatabaseSync } from 'node:sqlite';
import { expect, onTestFinished, test } from 'vitest';
import { randomFrom } from '../../test/support/random.js';
import { temporaryDirectory } from '../../test/support/service.js';
import { until } from '../../test/support/wait.js';
import { client, Subject } from './service.js';

const program = fileURLToPath(new URL('../../examples/exactly-once.ts', import.meta.url));
const KILLS = 5;
const ITEMS = 7;
/** More orders than a consumer counts before it is killed. */
const AHEAD = 1_000;

test('a consumer that keeps its cursor in the transaction of its work counts each event once, however often it is killed', async () => {
  const { address } = await Subject.start();
  const database = join(temporaryDirectory(), 'totals.db');
  const random = randomFrom(Number(process.env.FEED_TEST_SEED ?? 1));
  /** The orders that the consumers have counted together. */
  let counted = 0;
  let consumer: { child: ChildProcess; lines: () => number };
  const start = (): typeof consumer => {
    let lines = 0;
    const child = spawn(process.execPath, [program, 'orders', database, address], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.on('data', (chunk: Buffer) => {
      const more = chunk.toString().split('\n').length - 1;
      lines += more;
      counted += more;
    });
    child.stderr.resume();
    onTestFinished(() => void child.kill('SIGKILL'));
    return { child, lines: () => lines };
  };

  let uploaded = 0;
  const source = { isOver: false };
  async function* orders(): AsyncGenerator<string> {
    while (!source.isOver) {
      // Else it goes on while consumers start, and the last one has more to count than a busy machine does in its time.
      if (uploaded - counted < AHEAD)
        for (let i = 0; i < 5; i++) yield `item ${uploaded++ % ITEMS}`;
      await sleep(20);
    }
  }
  const upload = client(address).upload('orders', orders());
  for (let kill = 0; kill < KILLS; kill++) {
    consumer = start();
    const wanted = 50 + random(100);
    await until(() => consumer.lines() >= wanted, `${wanted} orders`);
    consumer.child.kill('SIGKILL');
    await once(consumer.child, 'exit');
  }
  source.isOver = true;
  await upload;
  const reader = new DatabaseSync(database, { readOnly: true, timeout: 5_000 });
  onTestFinished(() => reader.close());
  const select = reader.prepare('SELECT count FROM totals ORDER BY item');
  const totals = (): number[] => select.all().map((row) => Number(row.count));
  totals(); // It recovers the database, which a consumer that opens it at that moment would find locked.
  consumer = start();
  const sum = (): number => totals().reduce((all, n) => all + n, 0);
  await until(
    () => sum() >= uploaded,
    () => `${uploaded} orders, of which ${sum()} are counted`,
    60_000,
  );
  const wanted = Array.from({ length: ITEMS }, (_, i) => Math.ceil((uploaded - i) / ITEMS));
  expect(totals()).toEqual(wanted);
});
