import { setTimeout as sleep } from 'node:timers/promises';
import { createInbox, type NatsConnection } from '@nats-io/transport-node';
import { SetupError } from '../../nats/setup-error.js';
import type { Durability } from '../event-repository.js';

/** How Feed finds out whether the servers flush what they store: by one of these, or not at all. */
export interface FlushSources {
  /** Monitoring URLs, one for each server, such as http://nats-0:8222. */
  readonly monitorUrls: readonly string[];
  /** Connects as a user of the system account; undefined without credentials of one. */
  readonly connectToSystem: (() => Promise<NatsConnection>) | undefined;
  /** The operator says that all servers flush. */
  readonly isVouched: boolean;
}

/** What Feed reads of a server's answer. Only the leader of the cluster knows the other members. */
interface ServerState {
  readonly name: string;
  /** Undefined without JetStream. */
  readonly config?: { readonly sync_always?: boolean };
  readonly cluster?: {
    readonly cluster_size: number;
    readonly leader?: string;
    readonly replicas?: readonly { readonly name: string }[];
  };
}

/** Names of servers: those that said that they flush, and those that did not answer. */
export interface FlushingServers {
  readonly flushing: readonly string[];
  readonly silent: readonly string[];
}

/** The meaning of an acknowledgement, and how Feed knows it. */
export interface Finding {
  readonly durability: Durability;
  readonly reason: string;
  /** Undefined if nobody was asked. */
  readonly servers?: FlushingServers;
}

/** How long (milliseconds) a server may take to answer. */
const ANSWER_TIMEOUT = 3_000;
/** How long (milliseconds) the servers may take to elect a leader. */
const ELECTION_TIMEOUT = 15_000;
const RETRY_INTERVAL = 500;

const WHAT_TO_SET =
  'Set `sync_interval: always` in the jetstream block of each nats-server (in the NATS chart: ' +
  'config.jetstream.merge.sync_interval), and let Feed see it: FEED_NATS_MONITOR_URLS names the monitoring URL of each ' +
  'server, or FEED_NATS_SYSTEM_CREDENTIALS is a creds file of the system account. FEED_NATS_FLUSH=vouched says that ' +
  'you know it. FEED_DURABILITY=none takes any servers, and acknowledges DURABILITY_MEMORY';

/**
 * Finds out what an acknowledgement means: it survives the power cut of all servers only if each of them flushes before it
 * answers. (With persist_mode async a server would answer before it stores. It refuses that mode for streams with atomic
 * batches, and stream-config.ts refuses streams without.) Servers that are down don't answer: whether each of them flushed at an
 * earlier start, the stream remembers (stream-config.ts).
 *
 * @throws SetupError if that can't be known, or does not hold
 */
export async function findDurability(
  replicas: number,
  { monitorUrls, connectToSystem, isVouched }: FlushSources,
): Promise<Finding> {
  const durability = replicas >= 3 ? 'replicated' : 'fsync';
  if (isVouched)
    return {
      durability,
      reason: 'FEED_NATS_FLUSH=vouched: the operator says that every server flushes',
    };
  if (monitorUrls.length === 0 && !connectToSystem)
    throw new SetupError(
      `nobody can see whether the NATS servers flush what they store. By default they do not. ${WHAT_TO_SET}`,
    );
  const { answers, failures } = await askDuringElection(() =>
    connectToSystem ? askSystem(connectToSystem) : askMonitors(monitorUrls),
  );
  if (answers.length === 0)
    throw new SetupError(
      connectToSystem
        ? 'FEED_NATS_SYSTEM_CREDENTIALS: no NATS server tells this user how it flushes. It must be a user of the system account'
        : `FEED_NATS_MONITOR_URLS: ${failures.join('; ')}`,
    );
  const servers = new Map<string, ServerState>();
  for (const answer of answers) if (answer.config) servers.set(answer.name, answer);
  const names = [...servers.keys()];
  const unflushed = names.filter((name) => servers.get(name)!.config?.sync_always !== true);
  if (unflushed.length > 0)
    throw new SetupError(
      `${unflushed.length} of ${servers.size} NATS servers do not flush what they acknowledge ` +
        `(${unflushed.join(', ')}): a power cut would lose events. ${WHAT_TO_SET}`,
    );
  const silent = membersOf(answers).filter((name) => !servers.has(name));
  const size = sizeOf(answers);
  if (servers.size + silent.length < size)
    throw new SetupError(
      `${servers.size} of ${size} NATS servers said how they flush, and none the names of the others: ` +
        ['each must be up when Feed starts for the first time', ...failures].join('; '),
    );
  const reason =
    silent.length === 0
      ? `all ${servers.size} NATS servers flush before they answer`
      : `${servers.size} of ${size} NATS servers flush before they answer, and ${silent.join(', ')} did when last asked`;
  return { durability, reason, servers: { flushing: names, silent } };
}

interface Answers {
  readonly answers: readonly ServerState[];
  /** Says which servers did not answer, and why. */
  readonly failures: readonly string[];
}

/** Asks again while servers are missing and there is no leader that could name them. */
async function askDuringElection(ask: () => Promise<Answers>): Promise<Answers> {
  const end = performance.now() + ELECTION_TIMEOUT;
  for (;;) {
    const asked = await ask();
    const { answers } = asked;
    const isComplete = answers.length >= sizeOf(answers) || leaderOf(answers);
    if (isComplete || performance.now() > end) return asked;
    await sleep(RETRY_INTERVAL);
  }
}

const leaderOf = (answers: readonly ServerState[]): ServerState['cluster'] =>
  answers.find(({ name, cluster }) => cluster?.leader === name)?.cluster;

const sizeOf = (answers: readonly ServerState[]): number =>
  Math.max(1, ...answers.map(({ cluster }) => cluster?.cluster_size ?? 1));

/** Returns the names of all members of the cluster but its leader, which has answered. */
const membersOf = (answers: readonly ServerState[]): string[] =>
  (leaderOf(answers)?.replicas ?? []).map(({ name }) => name);

async function askMonitors(urls: readonly string[]): Promise<Answers> {
  const failures: string[] = [];
  const asked = urls.map((url) =>
    askMonitor(url).catch((error: unknown) => {
      failures.push(`${url} does not answer: ${String(error)}`);
    }),
  );
  const answers = (await Promise.all(asked)).filter((answer) => answer !== undefined);
  return { answers, failures };
}

async function askMonitor(url: string): Promise<ServerState> {
  interface Varz {
    readonly server_name: string;
    readonly jetstream?: {
      readonly config?: ServerState['config'];
      readonly meta?: ServerState['cluster'];
    };
  }
  const answer = await fetch(new URL('/varz', url), {
    signal: AbortSignal.timeout(ANSWER_TIMEOUT),
  });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  const { server_name: name, jetstream } = (await answer.json()) as Varz;
  return { name, config: jetstream?.config, cluster: jetstream?.meta };
}

/** Asks all servers, and waits until as many as the cluster has have answered. */
async function askSystem(connectToSystem: () => Promise<NatsConnection>): Promise<Answers> {
  interface Jsz {
    readonly server: { readonly name: string };
    readonly data?: {
      readonly config?: ServerState['config'];
      readonly meta_cluster?: ServerState['cluster'];
    };
  }
  const connection = await connectToSystem();
  try {
    const answers: ServerState[] = [];
    const done = Promise.withResolvers<void>();
    const inbox = createInbox();
    connection.subscribe(inbox, {
      callback: (error, message) => {
        if (error || message.headers?.code === 503) return done.resolve();
        const { server, data } = message.json<Jsz>();
        if (data)
          answers.push({ name: server.name, config: data.config, cluster: data.meta_cluster });
        if (answers.length >= sizeOf(answers)) done.resolve();
      },
    });
    connection.publish('$SYS.REQ.SERVER.PING.JSZ', JSON.stringify({ config: true }), {
      reply: inbox,
    });
    const timer = setTimeout(() => done.resolve(), ANSWER_TIMEOUT);
    await done.promise;
    clearTimeout(timer);
    return { answers, failures: [] };
  } finally {
    await connection.close();
  }
}
