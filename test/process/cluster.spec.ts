import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { connect, type Feed, type LogEntry } from '@feed-events/client';
import { freePorts } from '../../scripts/cluster/ports.ts';
import { NATS_SERVER } from '../support/nats.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until, within } from '../support/wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** `npm run cluster`, as in a terminal: a signal reaches the whole process group. */
class Cluster {
  private readonly child: ChildProcess;
  private readonly exited: Promise<number | null>;
  private isOver = false;
  output = '';

  constructor(...args: readonly string[]) {
    this.child = spawn('npm', ['run', '--silent', 'cluster', '--', ...args], {
      cwd: root,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, NATS_SERVER },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    for (const stream of [this.child.stdout!, this.child.stderr!])
      stream.setEncoding('utf8').on('data', (text: string) => (this.output += text));
    this.exited = once(this.child, 'close').then(([code]) => {
      this.isOver = true;
      return code as number | null;
    });
    onTestFinished(() => {
      for (const pid of [...this.pids, -this.child.pid!])
        if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    });
  }

  /** All process ids that it has printed. */
  get pids(): number[] {
    return Array.from(this.output.matchAll(/, pid (\d+)/g), ([, pid]) => Number(pid));
  }

  /** The process id that it has printed for a program. */
  pid(name: string): number {
    return Number(new RegExp(`${name} .*, pid (\\d+)`).exec(this.output)![1]);
  }

  /** Waits until it says what to try. Returns the addresses of the two replicas. */
  async ready(): Promise<readonly [string, string]> {
    await until(
      () => this.isOver || this.output.includes('Ctrl-C ends all of it'),
      () => `a cluster that is ready: ${this.output}`,
      120_000,
    );
    // One that can't start says why, and ends.
    expect(this.output).toContain('Ctrl-C ends all of it');
    const [, one, other] = /--address ([\d.:]+),([\d.:]+)/.exec(this.output)!;
    return [one, other];
  }

  async interrupt(): Promise<number | null> {
    process.kill(-this.child.pid!, 'SIGINT');
    return within(this.exited, () => `the end of the cluster: ${this.output}`, 60_000);
  }

  ended(): Promise<number | null> {
    return within(this.exited, () => `the end of the cluster: ${this.output}`, 60_000);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Watches a topic from earliest, and collects the bodies until the client is closed. */
function follow(feed: Feed): string[] {
  const bodies: string[] = [];
  void (async () => {
    for await (const { body } of feed.watch('orders', { from: 'earliest' })) bodies.push(body);
  })().catch(() => {});
  return bodies;
}

test.skipIf(!NATS_SERVER)(
  'npm run cluster: a watch outlives its replica, Ctrl-C leaves nothing running, and the next start has the events',
  async () => {
    const directory = temporaryDirectory();
    const cluster = new Cluster('--any-ports', '--directory', directory);
    const [one, other] = await cluster.ready();
    expect(cluster.pids).toHaveLength(5);

    const breaks: LogEntry[] = [];
    await using consumer = connect(`${one},${other}`, {
      log: (entry) => void (entry.error && breaks.push(entry)),
    });
    await using toOne = connect(one);
    await using toOther = connect(other);
    const third = ServiceProcess.shell(
      // exec: the signal below has to reach the replica, and not a shell.
      `exec env ${/FEED_ENGINE=jetstream [^]*bin\/feed-server/.exec(cluster.output)![0]}`,
      {},
    );
    await until(
      () => third.output.join('').includes('gRPC listens on'),
      () => `the third replica: ${third.output.join('')}`,
      120_000,
    );
    third.process.kill('SIGKILL');
    const [watch, onOne] = [follow(consumer), follow(toOne)];
    await toOther.upload('orders', [{ body: 'a' }]);
    await until(() => watch.length === 1 && onOne.length === 1, 'the first event on both');

    // One of the two kills hits the replica that serves the watch.
    process.kill(cluster.pid('feed-1'), 'SIGKILL');
    await until(() => /feed-1 .*ended \(SIGKILL\)/.test(cluster.output), 'a word of it');
    await toOther.upload('orders', [{ body: 'b' }]);
    await until(() => watch.length === 2, 'the event after the first kill');
    // This waits until the cluster has started it again.
    await toOne.upload('orders', [{ body: 'c' }]);
    process.kill(cluster.pid('feed-2'), 'SIGKILL');
    await toOne.upload('orders', [{ body: 'd' }]);
    await until(() => watch.length === 4, 'the event after the second kill');
    expect(watch).toEqual(['a', 'b', 'c', 'd']);
    expect(breaks.length).toBeGreaterThan(0);

    toOne.close(); // One watch stays open, which the drain has to end.
    expect(await cluster.interrupt()).toBe(0);
    expect(cluster.pids.filter(isAlive)).toEqual([]);

    const again = new Cluster('--any-ports', '--directory', directory);
    const [address] = await again.ready();
    await using late = connect(address);
    const held: string[] = [];
    for await (const { body } of late.watch('orders', { from: 'earliest' })) {
      held.push(body);
      if (held.length === 4) break;
    }
    expect(held).toEqual(['a', 'b', 'c', 'd']);
    expect(await again.interrupt()).toBe(0);
    expect(again.pids.filter(isAlive)).toEqual([]);
  },
  420_000,
);

test.skipIf(!NATS_SERVER)(
  'npm run cluster: names ports that are taken, and starts nothing',
  async () => {
    // Another program of this machine may have some of them.
    const server = createServer();
    let port = 0;
    for (const usual of [50_052, 50_051, 8081, 8080, 4224, 6224, 8224]) {
      server.listen(usual, '127.0.0.1');
      port = await once(server, 'listening').then(
        () => usual,
        () => 0,
      );
      if (port) break;
    }
    onTestFinished(() => void server.close());
    expect(port).toBeGreaterThan(0);
    const cluster = new Cluster('--directory', temporaryDirectory());
    expect(await cluster.ended()).toBe(1);
    expect(cluster.output).toMatch(
      new RegExp(`ports are taken: .*${port} \\(\\w+ of \\w+-\\d\\).*--any-ports`),
    );
    expect(cluster.pids).toEqual([]);
  },
);

test('clusters that start at the same time take no port of each other', async () => {
  const ports: number[] = [];
  // A cluster asks for its ports some seconds before the last of its programs listens.
  for (let i = 0; i < 20; i++) ports.push(...Object.values(await freePorts()));
  expect(new Set(ports).size).toBe(20 * 13);
});
