import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EventSource } from 'eventsource';
import { expect, onTestFinished, test } from 'vitest';
import { ask } from '../support/http.js';
import { freeAddresses } from '../support/ports.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';
import { httpxSse, INSTALL_TIMEOUT } from './python.js';

/** How often the service is killed, and how many events come between two kills at least. */
const KILLS = 10;
const EVENTS_EACH = 30;

/** A service that is killed and comes back at the same address. */
class Mortal {
  private constructor(
    private service: ServiceProcess,
    private readonly settings: Record<string, string>,
  ) {}

  static async start(): Promise<Mortal> {
    const settings = { ...(await freeAddresses()), FEED_DATA_DIR: temporaryDirectory() };
    return new Mortal(await ServiceProcess.start(settings), settings);
  }

  get address(): string {
    return this.service.httpAddress;
  }

  async killed(): Promise<void> {
    await this.service.kill('SIGKILL');
    this.service = await ServiceProcess.start(this.settings);
  }
}

/** Uploads numbered events over HTTP, each until it is acknowledged, as long as the test lasts. */
class Producer {
  /** How many are acknowledged. */
  stored = 0;
  private isStopped = false;
  private readonly done: Promise<void>;

  constructor(private readonly service: Mortal) {
    this.done = this.run();
    onTestFinished(() => this.stop());
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    await this.done;
  }

  private async run(): Promise<void> {
    while (!this.isStopped) {
      const body = JSON.stringify({
        topic: 'orders',
        id: `${this.stored}`,
        body: `${this.stored}`,
      });
      const headers = { 'content-type': 'application/x-ndjson' };
      // The id makes an event that was stored before its answer was lost come once.
      const answer = await ask(this.service.address, '/v1/events', {
        method: 'POST',
        headers,
        body,
      }).catch(() => undefined);
      if (answer?.status === 200) this.stored++;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Kills the service ten times while a reader follows, and expects each event once, in order. */
async function killTenTimes(
  service: Mortal,
  producer: Producer,
  bodies: readonly string[],
): Promise<void> {
  const reached = (count: number) =>
    until(
      () => bodies.length >= count,
      () => `${count} events: there are ${bodies.length} of ${producer.stored}`,
      60_000,
    );
  for (let kill = 0; kill < KILLS; kill++) {
    await reached(bodies.length + EVENTS_EACH);
    await service.killed();
  }
  await reached(bodies.length + EVENTS_EACH);
  await producer.stop();
  await reached(producer.stored);
  expect(bodies).toEqual(Array.from({ length: bodies.length }, (_, i) => `${i}`));
}

test(
  'an EventSource gets every event once, in order, while the service is killed ten times',
  { timeout: 400_000 },
  async () => {
    const service = await Mortal.start();
    const source = new EventSource(`http://${service.address}/v1/events?topic=orders&heartbeat=1s`);
    onTestFinished(() => source.close());
    const bodies: string[] = [];
    let opened = 0;
    source.addEventListener('open', () => opened++);
    source.addEventListener('message', ({ data, lastEventId }) => {
      const event = JSON.parse(data as string) as { body: string; cursor: string };
      expect(lastEventId).toBe(event.cursor);
      bodies.push(event.body);
    });
    // It is live: it gets what is stored from when it is open.
    await until(() => source.readyState === EventSource.OPEN, 'an open stream');
    await killTenTimes(service, new Producer(service), bodies);
    expect(opened).toBe(KILLS + 1);
  },
);

test(
  'httpx-sse gets every event once, in order, while the service is killed ten times',
  { timeout: 400_000 + INSTALL_TIMEOUT },
  async (context) => {
    const installed = await httpxSse();
    if ('missing' in installed) {
      console.warn(`skipped: ${installed.missing}`);
      context.skip();
      return;
    }
    const service = await Mortal.start();
    const producer = new Producer(service);
    const url = `http://${service.address}/v1/events?topic=orders&from=earliest&heartbeat=1s`;
    const program = fileURLToPath(new URL('sse_reader.py', import.meta.url));
    const reader: ChildProcess = spawn('python3', [program, url, '1000000'], {
      env: { ...process.env, PYTHONPATH: installed.path },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void reader.kill('SIGKILL'));
    const bodies: string[] = [];
    let rest = '';
    reader.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const { type, id, data } = JSON.parse(line) as { type: string; id: string; data: string };
        expect(type).toBe('message');
        const event = JSON.parse(data) as { body: string; cursor: string };
        expect(id).toBe(event.cursor);
        bodies.push(event.body);
      }
    });
    await killTenTimes(service, producer, bodies);
  },
);

test(
  'curl, asked again with the last id, gets every event once, in order, while the service is killed ten times',
  { timeout: 400_000 },
  async (context) => {
    if (spawnSync('curl', ['--version']).status !== 0) {
      console.warn('skipped: there is no curl');
      context.skip();
      return;
    }
    const service = await Mortal.start();
    const producer = new Producer(service);
    const bodies: string[] = [];
    let lastId = '';
    let isOver = false;
    let curl: ChildProcess | undefined;
    const take = (block: string): void => {
      const [, id] = /^id: (.*)$/m.exec(block) ?? [];
      const [, data] = /^data: (.*)$/m.exec(block) ?? [];
      if (id !== undefined) lastId = id;
      if (data !== undefined) bodies.push((JSON.parse(data) as { body: string }).body);
    };
    const follow = (): void => {
      if (isOver) return;
      const url = `http://${service.address}/v1/events?topic=orders&from=earliest`;
      curl = spawn('curl', ['-sN', '-H', `last-event-id: ${lastId}`, url]);
      let rest = '';
      curl.stdout!.setEncoding('utf8').on('data', (text: string) => {
        const blocks = (rest + text).split('\n\n');
        rest = blocks.pop()!;
        blocks.forEach(take);
      });
      curl.on('close', () => setTimeout(follow, 200));
    };
    follow();
    onTestFinished(() => {
      isOver = true;
      curl?.kill();
    });
    await killTenTimes(service, producer, bodies);
  },
);
