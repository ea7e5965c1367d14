// A client of a feed that loses nothing and stores nothing twice, whatever happens to the service. It knows
// the contract, proto/feed/v1/feed.proto, and nothing else of this repository.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  type ChannelOptions,
  type Client,
  type ClientReadableStream,
  type ClientWritableStream,
  credentials,
  loadPackageDefinition,
  type Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';

export interface NewEvent {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
}

/** As it is in the log: with a cursor to resume after. */
export interface StoredEvent extends NewEvent {
  readonly cursor: string;
}

export type Start =
  { readonly afterCursor: string } | { readonly position: 'START_POSITION_EARLIEST' };

export const EARLIEST: Start = { position: 'START_POSITION_EARLIEST' };

interface WatchRequest {
  readonly topic: string;
  readonly afterCursor?: string;
  readonly position?: string;
  readonly heartbeat?: { readonly seconds: number };
}

interface UploadResult {
  readonly received: number;
  readonly lastCursor: string;
}

export interface FeedClient extends Client {
  watch(request: WatchRequest): ClientReadableStream<StoredEvent>;
  uploadEvents(
    callback: (error: ServiceError | null, result: UploadResult) => void,
  ): ClientWritableStream<NewEvent>;
}

type FeedClientClass = new (
  address: string,
  channelCredentials: ReturnType<typeof credentials.createInsecure>,
  options: ChannelOptions,
) => FeedClient;

const contract = loadSync(
  ['feed/v1/feed.proto', 'google/rpc/status.proto', 'google/rpc/error_details.proto'],
  {
    includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
    longs: Number,
    defaults: true, // an empty string, not undefined, for a field that was not sent
  },
);
const { feed } = loadPackageDefinition(contract) as unknown as {
  feed: { v1: { FeedService: FeedClientClass } };
};

export function connect(address: string): FeedClient {
  return new feed.v1.FeedService(address, credentials.createInsecure(), {
    // Look for a service that is away several times a second; gRPC's own limit is two minutes.
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 250,
    // A watcher sends nothing: without pings it would wait for ever on a network that died.
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    // A connection of its own; clients of one process share one otherwise.
    'grpc.use_local_subchannel_pool': 1,
  });
}

/** How far an upload of many events has come. */
export interface UploadProgress {
  /** Events written to the stream, from the first on. */
  sent: number;
  /** Of these, from the first on, how many are known to be stored: acknowledged, or seen in the log. */
  stored: number;
  /** A cursor that none of the events after `stored` is before. Empty: not known yet. */
  cursor: string;
  /** Uploads that broke. */
  breaks: number;
}

export function newProgress(): UploadProgress {
  return { sent: 0, stored: 0, cursor: '', breaks: 0 };
}

/**
 * Only the end of an upload is acknowledged, so many events are sent as several uploads: more in each cost
 * less, and leave more in doubt when the service dies.
 */
const EVENTS_PER_UPLOAD = 5_000;

/**
 * Stores events of one topic in their order, each once, however often the service goes away.
 *
 * @param progress kept up to date; of another call with the same events: goes on from there
 */
export async function uploadAll(
  client: FeedClient,
  events: readonly NewEvent[],
  progress: UploadProgress,
  signal: AbortSignal,
): Promise<void> {
  const backoff = new Backoff();
  let inDoubt = false;
  while (inDoubt || progress.stored < events.length) {
    try {
      if (inDoubt) {
        await findStored(client, events, progress, signal);
        inDoubt = false;
        continue;
      }
      progress.sent = progress.stored;
      const next = events.slice(progress.stored, progress.stored + EVENTS_PER_UPLOAD);
      const result = await upload(client, next, () => progress.sent++, signal);
      progress.stored += result.received;
      progress.cursor = result.lastCursor;
      backoff.reset();
    } catch (error) {
      if (!isAway(error)) throw error;
      if (!inDoubt) progress.breaks++; // else this is one more try after the last one
      const received = receivedOf(error);
      // A service that shuts down says how many it stored. One that was killed can't: the log knows.
      if (received === undefined) inDoubt = true;
      else progress.stored += received;
      await backoff.pause();
    }
  }
}

/** One upload: resolves when the last event is stored. */
function upload(
  client: FeedClient,
  events: readonly NewEvent[],
  onSent: () => void,
  signal: AbortSignal,
): Promise<UploadResult> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const call = client.uploadEvents((error, result) => {
      signal.removeEventListener('abort', cancel);
      if (error) reject(error);
      else resolve(result);
    });
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel);
    let next = 0;
    const send = (): void => {
      while (next < events.length) {
        const more = call.write(events[next++]);
        onSent();
        if (!more) {
          // Writing on would pile the events up in this process. After a break 'drain' never comes. Not in
          // the same turn of the event loop: an upload that need not wait would leave no time for others.
          call.once('drain', () => setImmediate(send));
          return;
        }
      }
      call.end();
    };
    send();
  });
}

/**
 * Finds out how many events are stored after an upload broke without saying so. They are stored in order,
 * so the first one that the log lacks ends the search.
 *
 * Nothing of the broken upload can reach the log any more if the process that took it is dead. After a
 * mere network failure it still might, for a moment.
 */
async function findStored(
  client: FeedClient,
  events: readonly NewEvent[],
  progress: UploadProgress,
  signal: AbortSignal,
): Promise<void> {
  const { topic } = events[0];
  const start = progress.cursor === '' ? EARLIEST : { afterCursor: progress.cursor };
  for await (const { id, cursor } of readToHead(client, topic, start, signal)) {
    if (id === events[progress.stored]?.id) progress.stored++; // the others are of other producers
    progress.cursor = cursor;
  }
}

/** The events of a topic from a start on, up to the newest that is stored when this begins. */
export async function* readToHead(
  client: FeedClient,
  topic: string,
  start: Start,
  signal: AbortSignal,
): AsyncGenerator<StoredEvent, void, void> {
  const request = { topic, ...start, heartbeat: { seconds: 1 } };
  const { head, earliest, events, cancel } = await watch(client, request, signal);
  try {
    if (head === ('afterCursor' in start ? start.afterCursor : earliest)) return;
    for await (const event of events) {
      if (event.id === '') return; // a heartbeat: nothing is left to send, the newest is of another topic
      yield event;
      if (event.cursor === head) return;
    }
  } finally {
    cancel();
  }
}

/**
 * The events of a topic from the oldest on, and then as they are stored. Comes back after every break and
 * goes on after the last event that was handled, so each comes once and in order. Whoever reads slowly
 * slows down only its own watch: what it does not take waits in the log.
 *
 * @param onConnected called at the start and after every break
 */
export async function* follow(
  client: FeedClient,
  topic: string,
  signal: AbortSignal,
  onConnected: () => void,
): AsyncGenerator<StoredEvent, void, void> {
  const backoff = new Backoff();
  let start = EARLIEST;
  for (;;) {
    try {
      const { events, cancel } = await watch(client, { topic, ...start }, signal);
      onConnected();
      try {
        for await (const event of events) {
          backoff.reset();
          yield event;
          start = { afterCursor: event.cursor }; // after the yield: it has been handled
        }
      } finally {
        cancel();
      }
    } catch (error) {
      if (!isAway(error)) throw error;
    }
    await backoff.pause();
  }
}

interface Watch {
  /** Cursors to resume after: the newest event's, and the one just before the oldest. */
  readonly head: string;
  readonly earliest: string;
  /** To be read at once. Takes an event from the network when the last one was handled. */
  readonly events: AsyncIterable<StoredEvent>;
  /** To be called in any case: leaving a loop over the events does not end the call. */
  readonly cancel: () => void;
}

/** One watch, until it breaks. Resolves when the service has begun it. */
async function watch(
  client: FeedClient,
  request: WatchRequest,
  signal: AbortSignal,
): Promise<Watch> {
  signal.throwIfAborted();
  const call = client.watch(request);
  const cancel = (): void => {
    signal.removeEventListener('abort', cancel);
    call.cancel();
  };
  signal.addEventListener('abort', cancel);
  let failure: Error | undefined;
  call.on('error', (error) => (failure = error));
  async function* events(): AsyncGenerator<StoredEvent, void, void> {
    for await (const event of call) yield event as StoredEvent;
    // A loop that began after the call had failed just ends: to take that for the end of the log would be
    // to miss the rest of it.
    throw failure ?? new Error('the watch ended without a reason');
  }
  try {
    const headers = await new Promise<Metadata>((resolve, reject) => {
      call.once('metadata', resolve).once('error', reject);
    });
    const [head] = headers.get('feed-head').map(String);
    const [earliest] = headers.get('feed-earliest').map(String);
    return { head, earliest, events: events(), cancel };
  } catch (error) {
    cancel();
    throw error;
  }
}

/** Whether the service is away for now: it died, is shutting down or starting, or can't be reached. */
function isAway(error: unknown): boolean {
  return (error as Partial<ServiceError>).code === status.UNAVAILABLE;
}

const Status = contract['google.rpc.Status'] as MessageTypeDefinition<object, object>;
const ErrorInfo = contract['google.rpc.ErrorInfo'] as MessageTypeDefinition<object, object>;

/** How many events of a failed upload are stored, if its status says so. */
function receivedOf(error: unknown): number | undefined {
  const [bytes] = (error as ServiceError).metadata.get('grpc-status-details-bin');
  if (!Buffer.isBuffer(bytes)) return undefined;
  const { details } = Status.deserialize(bytes) as {
    details: { type_url: string; value: Buffer }[];
  };
  const detail = details.find(({ type_url }) => type_url.endsWith('/google.rpc.ErrorInfo'));
  if (!detail) return undefined;
  const { metadata } = ErrorInfo.deserialize(detail.value) as { metadata: Record<string, string> };
  return 'received' in metadata ? Number(metadata.received) : undefined;
}

/** Pauses between attempts: longer each time, and never the same for all clients. */
class Backoff {
  private failures = 0;

  async pause(): Promise<void> {
    const longest = Math.min(500, 50 * 2 ** this.failures++);
    await sleep(longest * (0.5 + Math.random() / 2));
  }

  reset(): void {
    this.failures = 0;
  }
}
