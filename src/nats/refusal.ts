import { NoRespondersError, RequestError } from '@nats-io/transport-node';
import { SetupError } from './setup-error.js';
import { CODE, type RefusedError, type UnansweredError } from './stream-api.js';

const ACCOUNT =
  "the JetStream limits of Feed's account (in its block of the server's configuration, or by `nsc edit account`)";
const MEMORY =
  'raise max_memory_store in the jetstream block of each nats-server (in the NATS chart: ' +
  `config.jetstream.memoryStore.enabled and .maxSize), and ${ACCOUNT}, if it has some`;
const STORAGE =
  'lower FEED_RETENTION_MAX_BYTES or FEED_QUOTA_BYTES, or raise max_file_store in the jetstream block of each nats-server ' +
  `(in the NATS chart: config.jetstream.fileStore.maxSize), and ${ACCOUNT}, if it has some`;
const JETSTREAM = 'give each nats-server a jetstream block (in the NATS chart: config.jetstream)';

/** What an operator can do about a refusal, by JetStream's code. */
const ADVICE: ReadonlyMap<number | undefined, string> = new Map([
  [
    CODE.noPeers,
    'FEED_NATS_REPLICAS says how many servers keep each stream. So many must be up and have room for it: ' +
      'max_file_store for the events, max_memory_store for the rooms of chats',
  ],
  [CODE.memoryExceeded, MEMORY],
  [CODE.storageExceeded, STORAGE],
  [CODE.insufficientResources, `${MEMORY}; ${STORAGE}`],
  [
    CODE.accountResourcesExceeded,
    `lower FEED_RETENTION_MAX_BYTES or FEED_QUOTA_BYTES, or raise ${ACCOUNT}`,
  ],
  [
    CODE.maxStreamBytesExceeded,
    `lower FEED_RETENTION_MAX_BYTES or FEED_QUOTA_BYTES, or raise ${ACCOUNT}. The rooms of chats need 64 MiB`,
  ],
  [
    CODE.maxBytesRequired,
    'set FEED_RETENTION_MAX_BYTES or FEED_QUOTA_BYTES: the account allows no stream without a limit',
  ],
  [CODE.maxStreams, `raise ${ACCOUNT}: Feed needs two streams`],
  [CODE.maxConsumers, `raise ${ACCOUNT}: each replica needs a consumer of each stream`],
  [
    CODE.notEnabledForAccount,
    "enable JetStream for the account of Feed's user (`jetstream: enabled` in the account's block, or `nsc edit account`)",
  ],
  [CODE.notEnabled, JETSTREAM],
  [CODE.subjectsOverlap, 'remove the other stream, or name Feed another one in FEED_NATS_STREAM'],
  [
    CODE.notClustered,
    'FEED_NATS_REPLICAS says how many servers keep the stream: a server that is no member of a cluster takes 1',
  ],
]);

/** Returns the error's message, and what an operator can do, where that is known. */
export function withAdvice(error: RefusedError | UnansweredError): string {
  const advice = isNoResponders(error.cause)
    ? `unless the servers are still starting, ${JETSTREAM}`
    : ADVICE.get(error.code);
  return advice === undefined ? error.message : `${error.message}: ${advice}`;
}

/** True if no server listens to JetStream's API. */
function isNoResponders(error: unknown): boolean {
  return (
    error instanceof NoRespondersError || (error instanceof RequestError && error.isNoResponders())
  );
}

/** True for a refusal that lasts until an operator changes something. Others pass, such as those of an election. */
export const isLasting = (error: RefusedError): boolean => ADVICE.has(error.code);

/** Returns why a start ends. `what` can't be done because JetStream refuses it. */
export function refused(what: string, error: RefusedError): SetupError {
  return new SetupError(`${what}: ${withAdvice(error)}`);
}
