import { connect } from '@nats-io/transport-node';
import { BreakableLink } from '../support/breakable-link.js';
import type { NatsServer } from '../support/nats.js';
import { randomFrom } from '../support/random.js';
import type { LinkedReplica } from './linked-replica.js';

/** The links by which NATS servers reach each other, one for each pair and direction. */
export class Routes {
  private readonly links = new Map<string, BreakableLink>();

  /** For NatsServer.start(). */
  readonly via = async (address: string, from: number, to: number): Promise<string> => {
    const link = await BreakableLink.to(address);
    this.links.set(`${from} ${to}`, link);
    return link.address;
  };

  /** Returns the links between two servers. */
  between(one: number, other: number): BreakableLink[] {
    return [`${one} ${other}`, `${other} ${one}`].map((key) => this.links.get(key)!);
  }

  /** Returns the links between a server and all others. */
  of(server: number): BreakableLink[] {
    const ends = (key: string): number[] => key.split(' ').map(Number);
    return [...this.links].filter(([key]) => ends(key).includes(server)).map(([, link]) => link);
  }

  close(): void {
    for (const link of this.links.values()) link.close();
  }
}

/** What faults break: three NATS servers, and replicas on a stream of theirs. */
export interface Cluster {
  readonly servers: readonly NatsServer[];
  readonly routes: Routes;
  readonly replicas: readonly LinkedReplica[];
  readonly stream: string;
}

type Random = (below: number) => number;
/** Breaks something, and returns how it is mended. */
type Fault = (cluster: Cluster, random: Random) => Promise<Mend>;
type Mend = () => void | Promise<void>;

const pick = <T>(of: readonly T[], random: Random): T => of[random(of.length)];

/** Returns all servers but one. */
const others = (servers: readonly NatsServer[], random: Random): NatsServer[] => {
  const left = random(servers.length);
  return servers.filter((_, i) => i !== left);
};

async function kill(servers: readonly NatsServer[]): Promise<Mend> {
  await Promise.all(servers.map((server) => server.kill()));
  return () => servers.forEach((server) => server.run());
}

function stop(hit: readonly { signal(signal: NodeJS.Signals): void }[]): Promise<Mend> {
  for (const one of hit) one.signal('SIGSTOP');
  return Promise.resolve(() => hit.forEach((one) => one.signal('SIGCONT')));
}

type Breaking = (link: BreakableLink) => void;

function breakAll(links: readonly BreakableLink[], breaking: Breaking): Promise<Mend> {
  links.forEach(breaking);
  return Promise.resolve(() => links.forEach((link) => link.mend()));
}

const BREAKINGS: Record<string, (random: Random) => Breaking> = {
  hang: () => (link) => link.hang(),
  cut: () => (link) => link.cut(),
  slow: (random) => {
    const delay = 20 + random(200);
    return (link) => (link.delay = delay);
  },
};

const LINKS: Record<string, (cluster: Cluster, random: Random) => readonly BreakableLink[]> = {
  'a replica': ({ replicas }, random) => pick(replicas, random).links,
  'a replica and one server': ({ replicas }, random) => [
    pick(pick(replicas, random).links, random),
  ],
  'two servers': ({ servers, routes }, random) => {
    const one = random(servers.length);
    return routes.between(one, (one + 1) % servers.length);
  },
  'a server and all others': ({ servers, routes }, random) => routes.of(random(servers.length)),
};

/** All that can be broken, by what a test's output calls it. */
export const FAULTS: Readonly<Record<string, Fault>> = {
  'kill the leader': async (cluster) => kill([await leaderOf(cluster)]),
  'kill a follower': async (cluster, random) => kill([pick(await followersOf(cluster), random)]),
  'kill two servers': ({ servers }, random) => kill(others(servers, random)),
  'kill all servers': ({ servers }) => kill(servers),
  'stop the leader': async (cluster) => stop([await leaderOf(cluster)]),
  'stop a follower': async (cluster, random) => stop([pick(await followersOf(cluster), random)]),
  'stop two servers': ({ servers }, random) => stop(others(servers, random)),
  'stop all servers': ({ servers }) => stop(servers),
  'let the leader step down': async (cluster) => {
    await ask(cluster, 'LEADER.STEPDOWN');
    return () => {};
  },
  'kill a replica': async ({ replicas }, random) => {
    const replica = pick(replicas, random);
    await replica.kill();
    return () => replica.run();
  },
  'stop a replica': ({ replicas }, random) => stop([pick(replicas, random)]),
  ...Object.fromEntries(
    Object.entries(BREAKINGS).flatMap(([how, breaking]) =>
      Object.entries(LINKS).map(([which, links]): [string, Fault] => [
        `${how} the links of ${which}`,
        (cluster, random) => breakAll(links(cluster, random), breaking(random)),
      ]),
    ),
  ),
};

/** A step of a plan: faults that begin together, and after some milliseconds are mended. */
export interface Step {
  readonly faults: readonly { readonly name: string; readonly seed: number }[];
  readonly duration: number;
}

/** Returns a plan. It follows from `random` alone. */
export function planOf(steps: number, random: Random): Step[] {
  const names = Object.keys(FAULTS);
  return Array.from({ length: steps }, () => ({
    faults: Array.from({ length: 1 + random(2) }, () => ({
      name: pick(names, random),
      seed: random(2 ** 31),
    })),
    // An election needs 4 s and more; shorter faults come more often.
    duration: random(4) === 0 ? 5_000 + random(7_000) : 300 + random(2_700),
  }));
}

/** Begins the faults of a step. Returns a function that mends them, and resolves when the servers and replicas are up again. */
export async function begin({ faults }: Step, cluster: Cluster): Promise<() => Promise<void>> {
  const mends: Mend[] = [];
  for (const { name, seed } of faults) mends.push(await FAULTS[name](cluster, randomFrom(seed)));
  return async () => {
    await Promise.all(mends.map(async (mend) => mend()));
    await Promise.all(cluster.servers.map((server) => server.ready()));
  };
}

async function leaderOf(cluster: Cluster): Promise<NatsServer> {
  const { servers } = cluster;
  const answer = await ask<{ cluster?: { leader?: string } }>(cluster, 'INFO');
  // While nobody leads, the first one will do.
  return servers.find(({ name }) => name === answer?.cluster?.leader) ?? servers[0];
}

async function followersOf(cluster: Cluster): Promise<NatsServer[]> {
  const leader = await leaderOf(cluster);
  return cluster.servers.filter((server) => server !== leader);
}

/** Sends a request about the stream, past all links. Returns undefined if there is no answer. */
async function ask<T>({ servers, stream }: Cluster, operation: string): Promise<T | undefined> {
  try {
    const connection = await connect({
      servers: servers.map(({ url }) => url),
      timeout: 2_000,
      reconnect: false,
    });
    try {
      const answer = await connection.request(`$JS.API.STREAM.${operation}.${stream}`, '', {
        timeout: 1_000,
      });
      return answer.json<T>();
    } finally {
      await connection.close();
    }
  } catch {
    return undefined;
  }
}
