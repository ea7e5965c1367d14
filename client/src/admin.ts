import { abortWith } from './abort-with.js';
import { FeedError } from './errors.js';
import {
  BackupPart,
  BackupRequest,
  DeleteTopicRequest,
  DeleteTopicResponse,
  EndStreamRequest,
  EndStreamResponse,
  GetTopicRequest,
  GetTopicResponse,
  ListStreamsRequest,
  ListTopicsRequest,
  ListTopicsResponse,
  OpenStream,
  Topic,
} from './gen/feed/v1/admin.js';
import type { Call } from './grpc/call.js';
import { decode, frame } from './grpc/frames.js';
import { type Method, type OpenCall, orAborted } from './open-call.js';
import { checkText } from './texts.js';

export interface AdminOptions {
  /** Cancels the call, which then throws a FeedError of status CANCELLED. */
  readonly signal?: AbortSignal;
}

/** A message of the contract, as ts-proto makes it. */
interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** This many topics are asked for at a time. */
const PAGE = 500;

/**
 * Shows operators the topics and the open streams, and removes, ends and backs up. The caller needs the verb `admin` of the policy. Calls are made once: one that fails is not
 * tried again.
 */
export class Admin {
  /** @internal */
  constructor(
    private readonly openCall: OpenCall,
    /** Returns the servers that the client's addresses name now. */
    private readonly servers: () => Promise<readonly string[]>,
    private readonly closing: AbortSignal,
  ) {}

  /**
   * Yields the topics that hold events and begin with a prefix, in order.
   *
   * @param prefix such as `orders.`; empty for all topics
   * @throws FeedError
   */
  async *listTopics(prefix = '', options: AdminOptions = {}): AsyncGenerator<Topic, void, void> {
    checkText('a prefix of topics', prefix);
    let pageToken = '';
    do {
      const request = { prefix, pageSize: PAGE, pageToken };
      const page = await this.ask(
        'ListTopics',
        [ListTopicsRequest, request],
        ListTopicsResponse,
        options,
      );
      yield* page.topics;
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
  }

  /** Describes a topic. One that holds nothing has 0 events. @throws FeedError */
  async getTopic(topic: string, options: AdminOptions = {}): Promise<Topic> {
    checkText('a topic', topic);
    const answer = await this.ask(
      'GetTopic',
      [GetTopicRequest, { topic }],
      GetTopicResponse,
      options,
    );
    return present(answer.topic);
  }

  /**
   * Removes what is stored of a topic now. Returns what that was. Events that are stored later are kept.
   *
   * @throws FeedError after which some of the events may be removed
   */
  async deleteTopic(topic: string, options: AdminOptions = {}): Promise<Topic> {
    checkText('a topic', topic);
    const answer = await this.ask(
      'DeleteTopic',
      [DeleteTopicRequest, { topic }],
      DeleteTopicResponse,
      options,
    );
    return present(answer.removed);
  }

  /**
   * Yields the open calls of each server that the client's addresses name, the oldest of each first. Behind one address for
   * several replicas, they are those of one of them; `replica` says which.
   *
   * @throws FeedError
   */
  async *listStreams(options: AdminOptions = {}): AsyncGenerator<OpenStream, void, void> {
    for (const server of await this.serversNow(options))
      yield* this.answers('ListStreams', [ListStreamsRequest, {}], OpenStream, options, server);
  }

  /**
   * Ends an open call, whose client gets ABORTED with the reason ENDED_BY_OPERATOR. Returns what the call was.
   *
   * @param id that of an OpenStream
   * @throws FeedError of reason STREAM_UNKNOWN if none of the servers has the call
   */
  async endStream(id: string, options: AdminOptions = {}): Promise<OpenStream> {
    let unknown: unknown;
    for (const server of await this.serversNow(options)) {
      try {
        const request = [EndStreamRequest, { id }] as const;
        const answer = await this.ask('EndStream', request, EndStreamResponse, options, server);
        return present(answer.ended);
      } catch (error) {
        if (!(error instanceof FeedError && error.reason === 'STREAM_UNKNOWN')) throw error;
        unknown = error;
      }
    }
    throw unknown;
  }

  /**
   * Yields a backup of the whole log of one server, in order. Its `data`, one after the other, is a file that `feed-server
   * restore` makes a log of. The server's log file grows until the backup is read to its end.
   *
   * @throws FeedError after which what has come is no backup
   */
  async *backup(options: AdminOptions = {}): AsyncGenerator<BackupPart, void, void> {
    let [bytes, total] = [0, 0];
    for await (const part of this.answers('Backup', [BackupRequest, {}], BackupPart, options)) {
      bytes += part.data.length;
      total = part.totalBytes;
      yield part;
    }
    // A proxy, for example, may end the call with OK when it has lost the server. The file's own sum would be looked at too late.
    if (bytes === 0 || bytes !== total)
      throw new FeedError('DATA_LOSS', `the backup ended after ${bytes} of ${total} bytes`);
  }

  /** Returns what `servers` does, unless the signal fires or the client is closed before: DNS may give no answer. */
  private async serversNow(options: AdminOptions): Promise<readonly string[]> {
    const ending = new AbortController();
    const release = abortWith(ending, options.signal, this.closing);
    return orAborted(this.servers(), ending.signal).finally(release);
  }

  /** Makes a call of one request and one answer. Resolves with the answer once the call has ended with OK. */
  private async ask<Q, A>(
    method: Method,
    request: readonly [Codec<Q>, Q],
    answer: Codec<A>,
    options: AdminOptions,
    server?: string,
  ): Promise<A> {
    let found: A | undefined;
    for await (const one of this.answers(method, request, answer, options, server)) found = one;
    if (found === undefined)
      throw new FeedError('INTERNAL', `the server gave no answer to ${method}`);
    return found;
  }

  /**
   * Makes a call of one request, and yields its answers.
   *
   * @param server one of `servers`; without it, calls take turns over them
   */
  private async *answers<Q, A>(
    method: Method,
    [codec, request]: readonly [Codec<Q>, Q],
    answer: Codec<A>,
    options: AdminOptions,
    server?: string,
  ): AsyncGenerator<A, void, void> {
    const ending = new AbortController();
    const release = abortWith(ending, options.signal, this.closing);
    let call: Call | undefined;
    try {
      call = await this.openCall(method, ending.signal, { server });
      await call.write(frame(codec.encode(request).finish()));
      call.end();
      for (let some = await call.read(); some; some = await call.read())
        for (const message of some) yield decode(answer, message);
    } finally {
      call?.cancel();
      release();
    }
  }
}

/** Returns a field of an answer, which a server of the contract always sets. */
function present<T>(value: T | undefined): T {
  if (value === undefined) throw new FeedError('INTERNAL', 'the answer of the server is not whole');
  return value;
}
