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

/** The part of a server's answer to /jsz?config=true that Feed reads. */
interface Jsz {
  readonly server_id: string;
  readonly disabled?: boolean;
  readonly config?: { readonly sync_always?: boolean };
  readonly meta_cluster?: { readonly cluster_size: number };
}

/** The meaning of an acknowledgement, and how Feed knows it. */
export interface Finding {
  readonly durability: Durability;
  readonly reason: string;
}

/** How long (milliseconds) a server may take to answer. */
const ANSWER_TIMEOUT = 3_000;

const WHAT_TO_SET =
  'Set `sync_interval: always` in the jetstream block of each nats-server (in the NATS chart: ' +
  'config.jetstream.merge.sync_interval), and let Feed see it: FEED_NATS_MONITOR_URLS names the monitoring URL of each ' +
  'server, or FEED_NATS_SYSTEM_CREDENTIALS is a creds file of the system account. FEED_NATS_FLUSH=vouched says that ' +
  'you know it. FEED_DURABILITY=none takes any servers, and acknowledges DURABILITY_MEMORY';

/**
 * Finds out what an acknowledgement means: it survives the power cut of all servers only if each of them flushes before it
 * answers. (With persist_mode async a server would answer before it stores. It refuses that mode for streams with atomic
 * batches, and stream-config.ts refuses streams without.)
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
  const answers = connectToSystem
    ? await askSystem(connectToSystem)
    : await Promise.all(monitorUrls.map(askMonitor));
  const servers = new Map<string, Jsz>();
  for (const answer of answers) if (answer.config) servers.set(answer.server_id, answer);
  const size = Math.max(1, ...answers.map((answer) => answer.meta_cluster?.cluster_size ?? 1));
  if (answers.length === 0)
    throw new SetupError(
      'FEED_NATS_SYSTEM_CREDENTIALS: no NATS server tells this user how it flushes. It must be a user of the system account',
    );
  if (servers.size < size)
    throw new SetupError(
      `${servers.size} of ${size} NATS servers said how they flush: ` +
        `each must be up when Feed starts${connectToSystem ? '' : ', and FEED_NATS_MONITOR_URLS must name each'}`,
    );
  const unflushed = [...servers.values()].filter(({ config }) => config?.sync_always !== true);
  if (unflushed.length > 0)
    throw new SetupError(
      `${unflushed.length} of ${servers.size} NATS servers do not flush what they acknowledge ` +
        `(${unflushed.map((server) => server.server_id).join(', ')}): a power cut would lose events. ${WHAT_TO_SET}`,
    );
  return { durability, reason: `all ${servers.size} NATS servers flush before they answer` };
}

async function askMonitor(url: string): Promise<Jsz> {
  try {
    const answer = await fetch(new URL('/jsz?config=true', url), {
      signal: AbortSignal.timeout(ANSWER_TIMEOUT),
    });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    return (await answer.json()) as Jsz;
  } catch (error) {
    throw new SetupError(`FEED_NATS_MONITOR_URLS: ${url} does not answer: ${String(error)}`);
  }
}

/** Asks all servers, and waits until as many as the cluster has have answered. */
async function askSystem(connectToSystem: () => Promise<NatsConnection>): Promise<Jsz[]> {
  const connection = await connectToSystem();
  try {
    const answers: Jsz[] = [];
    const done = Promise.withResolvers<void>();
    const inbox = createInbox();
    connection.subscribe(inbox, {
      callback: (error, message) => {
        if (error || message.headers?.code === 503) return done.resolve();
        const { data } = message.json<{ data?: Jsz }>();
        if (data) answers.push(data);
        const size = Math.max(...answers.map((answer) => answer.meta_cluster?.cluster_size ?? 0));
        if (size > 0 && answers.length >= size) done.resolve();
      },
    });
    connection.publish('$SYS.REQ.SERVER.PING.JSZ', JSON.stringify({ config: true }), {
      reply: inbox,
    });
    const timer = setTimeout(() => done.resolve(), ANSWER_TIMEOUT);
    await done.promise;
    clearTimeout(timer);
    return answers;
  } finally {
    await connection.close();
  }
}
