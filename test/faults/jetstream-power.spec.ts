import { describe, expect, onTestFailed, onTestFinished, test, type TestContext } from 'vitest';
import { take, upload } from '../support/client.js';
import { type LossyDisk, lossyDisk } from '../support/lossy-disk.js';
import { FLUSHES, jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { randomFrom } from '../support/random.js';
import { ServiceProcess } from '../support/service.js';
import { useProgram } from '../support/shim.js';
import { LinkedReplica } from './linked-replica.js';
import { NumberedTopics } from './numbered-topics.js';

/** How many cuts each test makes. */
const CUTS = Number(process.env.FEED_TEST_NATS_POWER_CUTS ?? 1);
/** The seed of all random choices. The machine's timing is not repeated by it. */
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
/** By default, a server flushes every two minutes. */
const BY_DEFAULT = '';

/** NATS servers, each on a machine of its own, whose power can be cut. They are named by their index. */
class Machines {
  private constructor(
    readonly servers: readonly NatsServer[],
    private readonly disks: readonly LossyDisk[],
  ) {}

  static async start(disks: readonly LossyDisk[], jetstream: string): Promise<Machines> {
    const stores = disks.map(({ directory }) => directory);
    const servers = await NatsServer.start(disks.length, { jetstream, stores });
    onTestFinished(async () => void (await Promise.all(servers.map((server) => server.remove()))));
    return new Machines(servers, disks);
  }

  get all(): number[] {
    return [...this.servers.keys()];
  }

  /** Cuts the power of some machines at once. */
  async cut(machines: readonly number[]): Promise<void> {
    // Stopped first, so that none of them answers or writes after the power of another one is cut.
    for (const i of machines) this.servers[i].signal('SIGSTOP');
    for (const i of machines) this.disks[i].cut();
    await Promise.all(machines.map((i) => this.servers[i].kill()));
  }

  /** Starts machines again whose power was cut. */
  restore(machines: readonly number[]): void {
    for (const i of machines) {
      this.disks[i].restore();
      this.servers[i].run();
    }
  }

  async ready(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.ready()));
  }
}

/** Returns the settings of a replica that looks whether the servers flush. */
function observing(servers: readonly NatsServer[]): Record<string, string> {
  return {
    ...jetstreamSettings(servers),
    FEED_DURABILITY: 'fsync',
    FEED_NATS_MONITOR_URLS: servers.map(({ monitorUrl }) => monitorUrl).join(),
  };
}

type Random = (below: number) => number;

describe.skipIf(!NATS_SERVER)(`a power cut of NATS servers (FEED_TEST_SEED=${SEED})`, () => {
  const powerOff = useProgram(new URL('power-off.c', import.meta.url));
  const timeout = 120_000 + CUTS * 60_000;

  function start(context: TestContext, size: number, jetstream: string): Promise<Machines> {
    const program = powerOff(context);
    const disks = Array.from({ length: size }, () => lossyDisk(context, program));
    return Machines.start(disks, jetstream);
  }

  /** Cuts the power again and again while clients of two replicas work, and checks that nothing was lost. */
  async function survives(
    machines: Machines,
    cutOnce: (topics: NumberedTopics, random: Random) => Promise<void>,
  ): Promise<void> {
    const random = randomFrom(SEED);
    const settings = { ...observing(machines.servers), FEED_DEDUP_WINDOW: '1h' };
    const replica = () => LinkedReplica.start(machines.servers, settings);
    const replicas = await Promise.all([replica(), replica()]);
    onTestFailed(() => console.log(replicas.map(({ output }) => output).join('\n\n')));
    const topics = new NumberedTopics(['a', 'b', 'c'], replicas);
    topics.begin();
    for (let cut = 0; cut < CUTS; cut++) {
      await topics.more(50 + random(200));
      await cutOnce(topics, random);
      await machines.ready();
    }
    await topics.more(50);
    console.log(`${CUTS} cuts, ${await topics.end(await replica())} events`);
  }

  test.for([1, 3])(
    'of %i at once takes nothing acknowledged or delivered',
    { timeout },
    async (size, context) => {
      const machines = await start(context, size, FLUSHES);
      await survives(machines, async () => {
        await machines.cut(machines.all);
        machines.restore(machines.all);
      });
    },
  );

  test(
    'of one of three, while another one is killed and the third one paused, takes nothing acknowledged or delivered',
    { timeout },
    async (context) => {
      const machines = await start(context, 3, FLUSHES);
      const { servers } = machines;
      await survives(machines, async (topics, random) => {
        const early = random(3);
        const [cut, late] = [(early + 1) % 3, (early + 2) % 3];
        // Killed, because to a server that is paused the system delivers all that was sent to it, later.
        await servers[early].kill();
        // Only the other two have what is acknowledged now.
        await topics.more(10 + random(50));
        await machines.cut([cut]);
        servers[late].signal('SIGSTOP');
        await topics.standstill();
        servers[early].run();
        machines.restore([cut]);
        // Now these two are the majority, and go on with what the power cut has left.
        await topics.more(10);
        servers[late].signal('SIGCONT');
      });
    },
  );

  test('of servers that do not flush takes acknowledged events, which shows that these tests would notice it', async (context) => {
    const machines = await start(context, 3, BY_DEFAULT);
    const settings = {
      ...jetstreamSettings(machines.servers),
      FEED_DURABILITY: 'fsync',
      FEED_NATS_FLUSH: 'vouched', // wrongly
    };
    const before = await ServiceProcess.start(settings);
    const events = Array.from({ length: 100 }, (_, i) => ({ topic: 'orders', id: String(i) }));
    expect((await upload(before.connect(), events)).result?.received).toBe(100);
    await before.kill('SIGKILL');
    await machines.cut(machines.all);
    machines.restore(machines.all);
    await machines.ready();

    const client = (await ServiceProcess.start(settings)).connect();
    expect((await upload(client, [{ topic: 'orders', id: 'later' }])).result?.received).toBe(1);
    const [first] = await take(client, { topic: 'orders', position: 1 }, 1);
    expect(first.id).toBe('later');
  });

  test.each([
    ['none of three servers flushes', BY_DEFAULT, '3 of 3 NATS servers do not flush'],
    ['one of three does not flush', [FLUSHES, BY_DEFAULT, FLUSHES], '1 of 3 NATS servers do not'],
  ])('is not risked: a start is refused where %s', async (_which, jetstream, message) => {
    const servers = await NatsServer.start(3, { jetstream });
    onTestFinished(async () => void (await Promise.all(servers.map((server) => server.remove()))));
    const service = ServiceProcess.spawn(observing(servers));
    expect(await service.ended()).toEqual({ code: 78, signal: null });
    expect(service.output.join('')).toContain(message);
  });
});
