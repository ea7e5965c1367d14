import type { NatsConnection } from '@nats-io/transport-node';
import { SetupError } from '../../nats/setup-error.js';
import type { Durability } from '../event-repository.js';
import {
  askDuringElection,
  askMonitors,
  askSystem,
  membersOf,
  type ServerState,
  sizeOf,
} from './server-states.js';

/** How Feed finds out whether the servers flush what they store: by one of these, or not at all. */
export interface FlushSources {
  /** Monitoring URLs, one for each server, such as http://nats-0:8222. */
  readonly monitorUrls: readonly string[];
  /** Connects as a user of the system account; undefined without credentials of one. */
  readonly connectToSystem: (() => Promise<NatsConnection>) | undefined;
  /** The operator says that all servers flush. */
  readonly isVouched: boolean;
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

const WHAT_TO_SET =
  'Set `sync_interval: always` in the jetstream block of each nats-server (in the NATS chart: ' +
  'config.jetstream.merge.sync_interval), and let Feed see it: FEED_NATS_MONITOR_URLS names the monitoring URL of each ' +
  'server, or FEED_NATS_SYSTEM_CREDENTIALS is a creds file of the system account. FEED_NATS_FLUSH=vouched says that ' +
  'you know it. FEED_DURABILITY=none takes any servers, and acknowledges DURABILITY_MEMORY';

/**
 * Finds out what an acknowledgement means: it survives the power cut of all servers only if each of them flushes before it
 * answers. (With persist_mode async a server would answer before it stores. It refuses that mode for streams with atomic
 * batches, and stream-config.ts refuses streams without.) For a server that is down, the stream's metadata says whether it flushed
 * at an earlier start (stream-config.ts).
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
      `only ${servers.size} of ${size} NATS servers said how they flush, and no leader among them named the others: ` +
        ['each must be up when Feed starts for the first time', ...failures].join('; '),
    );
  const reason =
    silent.length === 0
      ? `all ${servers.size} NATS servers flush before they answer`
      : `${servers.size} of ${size} NATS servers flush before they answer, and ${silent.join(', ')} did when last asked`;
  return { durability, reason, servers: { flushing: names, silent } };
}
