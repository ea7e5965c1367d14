// A client that loses no event and stores none twice, whatever happens to the service. It uses the contract,
// proto/feed/v1/feed.proto, and nothing else of this repository.
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

/** An event as a watch gets it, with its cursor to resume after. */
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
    defaults: true, // a text that was not sent is an empty string, not undefined
  },
);
const { feed } = loadPackageDefinition(contract) as unknown as {
  feed: { v1: { FeedService: FeedClientClass } };
};

export function connect(address: string): FeedClient {
  return new feed.v1.FeedService(address, credentials.createInsecure(), {
    // While the service is away, try to connect several times a second. By default, gRPC waits up to two minutes.
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 250,
    // A watcher sends nothing, so without pings it would wait for ever if the network dies.
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    // Each client has its own connection. By default, the clients of a process share one.
    'grpc.use_local_subchannel_pool': 1,
  });
}

/** How far uploadAll() has come. */
export interface UploadProgress {
  /** This many events, from the first on, were written to the stream. */
  sent: number;
  /** This many events, from the first on, are known to be stored: acknowledged, or found in the log. */
  stored: number;
  /**
   * All events that are not known to be stored come after this cursor, if they are in the log. Empty if it is not
   * known.
   */
  cursor: string;
  /** The number of uploads that broke. */
  breaks: number;
}

export function newProgress(): UploadProgress {
  return { sent: 0, stored: 0, cursor: '', breaks: 0 };
}

/**
 * Only the end of an upload is acknowledged, so many events are sent as several uploads. Longer uploads cost less,
 * but leave it open for more events if they are stored when the service dies.
 */
const EVENTS_PER_UPLOAD = 5_000;

/**
 * Stores events of one topic in their order, each once, however often the service goes away.
 *
 * @param progress is kept up to date. With the progress of an earlier call for the same events, this call goes on from
 * there.
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
      if (!inDoubt) progress.breaks++; // if in doubt, it was not an upload that failed but findStored()
      const received = receivedOf(error);
      // A service that shuts down says how many events it stored. After a kill only the log can tell.
      if (received === undefined) inDoubt = true;
      else progress.stored += received;
      await backoff.pause();
    }
  }
}

/** Makes one upload. Resolves when its last event is stored. */
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
          // To write on would fill this process's memory. After a break, 'drain' never comes, and the callback above
          // rejects. The next write waits for another turn of the event loop, because an upload that never has to
          // wait would block others.
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
 * Finds out how many events are stored, after an upload broke and its status did not say. The events are stored in
 * order, so the search goes through the log once.
 *
 * If the process that took the broken upload is dead, no more of its events can reach the log. After a failure of the
 * network they still can, for a moment.
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
    if (id === events[progress.stored]?.id) progress.stored++; // other ids come from other producers
    progress.cursor = cursor;
  }
}

/** Yields the events of a topic from a start on, up to the newest event that is stored when the watch begins. */
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
      if (event.id === '') return; // a heartbeat: nothing is left to send, because the newest event has another topic
      yield event;
      if (event.cursor === head) return;
    }
  } finally {
    cancel();
  }
}

/**
 * Yields the events of a topic from the oldest on, and then each new one. After every break it connects again, and
 * goes on after the last event that was handled, so each event comes once and in order. A slow reader slows down only
 * its own watch: the events that it has not taken stay in the log.
 *
 * @param onConnected is called when the watch has begun, at the start and after every break
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
  /** Cursors to resume after: `head` is that of the newest event, `earliest` is just before the oldest. */
  readonly head: string;
  readonly earliest: string;
  /** Read it at once. It takes an event from the network only when the one before was handled. */
  readonly events: AsyncIterable<StoredEvent>;
  /** Always call it in the end, because leaving a loop over the events does not end the call. */
  readonly cancel: () => void;
}

/** Opens a watch that ends at its first break. Resolves when the response headers have come. */
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
    // If the call failed before this loop began, the loop ends without an error. The caller must not take that for
    // the end of the log.
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

/** True if the service is away for now: it died, is shutting down or starting, or can't be reached. */
function isAway(error: unknown): boolean {
  return (error as Partial<ServiceError>).code === status.UNAVAILABLE;
}

const Status = contract['google.rpc.Status'] as MessageTypeDefinition<object, object>;
const ErrorInfo = contract['google.rpc.ErrorInfo'] as MessageTypeDefinition<object, object>;

/** Returns how many events of a failed upload are stored, or undefined if its status does not say. */
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

/**
 * Makes pauses between attempts. They grow to half a second, and are random so that clients do not all come back
 * together.
 */
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
