import { setMaxListeners } from 'node:events';
import { abortWith } from './abort-with.js';
import { Admin } from './admin.js';
import type { RetryOptions } from './backoff.js';
import type { Source } from './backlog.js';
import { Chat, type ChatOptions, type ChatState } from './chat.js';
import { LONGEST_TIMER } from './clock.js';
import type { FeedError } from './errors.js';
import { parseAddresses } from './grpc/addresses.js';
import type { ConnectionOptions } from './grpc/connection.js';
import { Servers } from './grpc/servers.js';
import { ClientTls, type TlsOptions } from './grpc/tls.js';
import { describe, type LogEntry, retrying } from './log.js';
import { type CallMetadata, callOpener, type OpenCall } from './open-call.js';
import { nameTopics, topicList, type Topics } from './topics.js';
import { Upload, type UploadOptions, type UploadSummary } from './upload.js';
import { Watch, type WatchOptions, type WatchState } from './watch.js';

export interface ConnectOptions extends CallMetadata {
  /** True for TLS with the system's authorities; certificates of your own otherwise. No TLS by default. */
  readonly tls?: boolean | TlsOptions;
  /** Milliseconds until a server that does not answer is given up for another attempt; 10,000 by default. */
  readonly connectTimeout?: number;
  /**
   * After `time` milliseconds without a byte from a server that calls are open to, it is asked for a sign of life; after
   * `timeout` more, it is gone. 30,000 and 10,000 by default.
   */
  readonly keepalive?: { readonly time?: number; readonly timeout?: number };
  /** Bytes that the server may send ahead on a stream that is not read; 1 MiB by default. It is HTTP/2's stream window. */
  readonly streamWindow?: number;
  /** The waits between attempts to connect again. */
  readonly retry?: RetryOptions;
  /**
   * Called at each change of a watch's or a chat's state, and when an upload's call broke and is made again. What it throws ends that
   * watch, chat or upload.
   */
  readonly log?: (entry: LogEntry) => void;
}

/** Returns the options of connections, with the defaults for those that are not given. */
export function withDefaults({
  tls,
  connectTimeout = 10_000,
  keepalive: { time = 30_000, timeout = 10_000 } = {},
  streamWindow = 2 ** 20,
}: ConnectOptions): ConnectionOptions {
  return {
    tls: tls ? new ClientTls(tls === true ? {} : tls) : undefined,
    connectTimeout: Math.min(connectTimeout, LONGEST_TIMER),
    keepaliveTime: Math.min(time, LONGEST_TIMER),
    keepaliveTimeout: Math.min(timeout, LONGEST_TIMER),
    streamWindow,
  };
}

/** A client of one Feed service. Its watches, uploads and chats share its connections. */
export class Feed implements AsyncDisposable {
  /** What operators see and do. */
  readonly admin: Admin;
  private readonly servers: Servers;
  private readonly openCall: OpenCall;
  private readonly closing = new AbortController();

  /** @internal */
  constructor(
    addresses: string | readonly string[],
    private readonly options: ConnectOptions,
  ) {
    setMaxListeners(0, this.closing.signal); // All that is open listens to it, and Node 20 warns of more than ten.
    this.servers = new Servers(parseAddresses(addresses), withDefaults(options));
    this.openCall = callOpener(this.servers, options);
    this.admin = new Admin(this.openCall, () => this.servers.addressesNow(), this.closing.signal);
  }

  /**
   * Returns a watch of a topic, a pattern of topics, or several of both. In a pattern, `*` stands for one token of a topic, and `>` at
   * the end for one or more: `orders.*.created`, `orders.>`, and `>` for all topics. The watch connects when the first event is
   * asked for.
   *
   * @throws TypeError or RangeError if there is no topic, or for an option that is none
   */
  watch(topics: Topics, options: WatchOptions = {}): Watch {
    const list = topicList(topics);
    const onState = (state: WatchState): void => {
      this.options.log?.(describe(`the watch of ${nameTopics(list)}`, state));
      options.onState?.(state);
    };
    const { openCall, closing } = this;
    return new Watch(openCall, list, { ...options, onState }, closing.signal, this.options.retry);
  }

  /**
   * Stores the events of a source, in order, each once. Resolves when all of them are stored.
   *
   * @throws UploadError, which says how many of the events are stored. Its reason is `DEDUP_WINDOW_PASSED` if events may be
   * stored or not, and it is too late to send them again. TypeError for an option or a source that is none.
   */
  async upload(topic: string, source: Source, options: UploadOptions = {}): Promise<UploadSummary> {
    const onRetry = (error: FeedError, wait: number): void => {
      this.options.log?.(retrying(`the upload to ${topic}`, error, wait));
      options.onRetry?.(error, wait);
    };
    const ending = new AbortController();
    const { signal } = ending;
    const release = abortWith(ending, options.signal, this.closing.signal);
    try {
      const given = { ...options, onRetry, signal };
      return await new Upload(this.openCall, topic, source, given, this.options.retry).run();
    } finally {
      release();
    }
  }

  /**
   * Returns a chat in a room. It joins the room when its iteration begins, or with the first send().
   *
   * @throws TypeError if the room or the name is no text
   */
  chat(room: string, options: ChatOptions): Chat {
    const onState = (state: ChatState): void => {
      this.options.log?.(describe(`the chat in ${room}`, state));
      options.onState?.(state);
    };
    const { openCall, closing } = this;
    return new Chat(openCall, room, { ...options, onState }, closing.signal, this.options.retry);
  }

  /**
   * Ends everything, and closes the connections. The iterations of watches and chats are then done, without an error; uploads
   * reject with an UploadError of status CANCELLED.
   */
  close(): void {
    this.closing.abort();
    this.servers.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/**
 * Makes a client. It connects with the first call, and connects again whenever that is needed.
 *
 * @param addresses `host:port`, `[ipv6]:port` or `dns:///host:port` (each IP address of the name is a server), or several in a
 * list or separated by commas; `localhost:50051` by default. The default port is 50051. Calls take turns over the servers.
 * @throws TypeError for an address of another form
 */
export function connect(
  addresses: string | readonly string[] = 'localhost:50051',
  options: ConnectOptions = {},
): Feed {
  return new Feed(addresses, options);
}
