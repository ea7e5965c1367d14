import { setTimeout as sleep } from 'node:timers/promises';
import { createInbox, type NatsConnection } from '@nats-io/transport-node';

/** What Feed reads of a server's answer. Only the leader of the cluster knows the other members. */
export interface ServerState {
  readonly name: string;
  /** Undefined without JetStream. */
  readonly config?: { readonly sync_always?: boolean };
  readonly cluster?: {
    readonly cluster_size: number;
    readonly leader?: string;
    readonly replicas?: readonly { readonly name: string }[];
  };
}

/** How long (milliseconds) a server may take to answer. */
const ANSWER_TIMEOUT = 3_000;
/** How long (milliseconds) the servers may take to elect a leader. */
const ELECTION_TIMEOUT = 15_000;
const RETRY_INTERVAL = 500;

/** What the servers answered. */
export interface Answers {
  readonly answers: readonly ServerState[];
  /** Says which servers did not answer, and why. */
  readonly failures: readonly string[];
}

/** Asks again while servers are missing and there is no leader that could name them. */
export async function askDuringElection(ask: () => Promise<Answers>): Promise<Answers> {
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

/** Returns how many servers the cluster has, as far as they know; 1 without a cluster. */
export const sizeOf = (answers: readonly ServerState[]): number =>
  Math.max(1, ...answers.map(({ cluster }) => cluster?.cluster_size ?? 1));

/** Returns the names of all members of the cluster but its leader; none if the leader is not among those that answered. */
export const membersOf = (answers: readonly ServerState[]): string[] =>
  (leaderOf(answers)?.replicas ?? []).map(({ name }) => name);

/** Asks each server at its monitoring URL. */
export async function askMonitors(urls: readonly string[]): Promise<Answers> {
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

/** Asks all servers as a user of the system account, and waits until as many as the cluster has have answered. */
export async function askSystem(connectToSystem: () => Promise<NatsConnection>): Promise<Answers> {
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
