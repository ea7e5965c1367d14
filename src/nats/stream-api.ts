import {
  AuthorizationError,
  createInbox,
  headers as newHeaders,
  type MsgHdrs,
  type NatsConnection,
  PermissionViolationError,
  UserAuthenticationExpiredError,
} from '@nats-io/transport-node';
import { SetupError } from './setup-error.js';

/** How long (milliseconds) a question to the stream's leader may take. An election takes 4 to 8 s. */
const ANSWER_TIMEOUT = 3_000;

/**
 * The library forgets a question after so many times the time that its answer may take. Its own timer does not look at the socket again:
 * a standstill that is longer loses an answer that has come.
 */
const FORGET_FACTOR = 2;

/**
 * How long (milliseconds) a stream's leader may be behind what a consumer has delivered. The consumer may be another server's, which
 * learns from the leader that a message is agreed on and may write it sooner than a busy leader does.
 */
export const LEADER_LAG = 5_000;

/** The most that the headers of a message take, which count for the server's `max_payload`. */
const HEADERS_BYTES = 1_024;

/** Error codes of JetStream's API: server/errors.json of nats-server. */
export const CODE = {
  accountResourcesExceeded: 10002,
  noPeers: 10005,
  temporarilyUnavailable: 10008,
  notLeader: 10009,
  insufficientResources: 10023,
  maxConsumers: 10026,
  maxStreams: 10027,
  memoryExceeded: 10028,
  noMessage: 10037,
  notEnabledForAccount: 10039,
  storageExceeded: 10047,
  messageTooLarge: 10054,
  streamExists: 10058,
  streamNotFound: 10059,
  subjectsOverlap: 10065,
  wrongLastSequence: 10071,
  notClustered: 10074,
  notEnabled: 10076,
  maxBytes: 10077,
  maxBytesRequired: 10113,
  maxStreamBytesExceeded: 10122,
  /** The same as wrongLastSequence, from a server that does not name the sequence. */
  wrongLastSequenceOfBatch: 10164,
} as const;

/** The cluster is not complete yet, or elects a leader: the same request may be answered later. */
const NOT_NOW: ReadonlySet<number> = new Set([
  CODE.noPeers,
  CODE.temporarilyUnavailable,
  CODE.notLeader,
]);

/** JetStream refused a request. */
export class RefusedError extends Error {
  constructor(
    readonly code: number,
    description: string,
  ) {
    super(`JetStream refused: ${description} (${code})`);
  }
}

/** There was no answer: no connection, no leader, or a slow server. What was asked for may have been done or not. */
export class UnansweredError extends Error {
  /** JetStream's code, where a server has said why. */
  code: number | undefined;
}

/** Is told what happens to a connection. */
export interface ConnectionListener {
  /** Called when the connection is lost, and when it is there again. */
  onConnection(isConnected: boolean): void;
  /** Called when the servers refuse what they will go on refusing until an operator changes something. */
  onRefusal(error: SetupError): void;
}

/** The stream's state, as the API has it. `created` and `last_ts` are times as RFC 3339 has them. */
export interface StreamInfo {
  readonly created: string;
  readonly config: StreamConfig;
  readonly state: {
    readonly first_seq: number;
    readonly last_seq: number;
    readonly first_ts: string;
    readonly last_ts: string;
    readonly bytes: number;
    readonly consumer_count: number;
    /** How many messages were removed that stood between others; missing if none was. */
    readonly num_deleted?: number;
    /** How many subjects have messages; missing if none has. */
    readonly num_subjects?: number;
    readonly subjects?: Readonly<Record<string, number>>;
  };
}

/** The parts of a stream's configuration that Feed sets. Times are nanoseconds. */
export interface StreamConfig {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly storage: 'file' | 'memory';
  readonly retention: 'limits' | 'interest' | 'workqueue';
  readonly discard: 'old' | 'new';
  readonly num_replicas: number;
  readonly max_age: number;
  readonly max_bytes: number;
  readonly max_msgs: number;
  readonly max_msgs_per_subject: number;
  readonly max_msg_size: number;
  readonly duplicate_window: number;
  readonly allow_direct: boolean;
  readonly allow_atomic: boolean;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A message as it is stored. */
export interface StoredMessage {
  readonly subject: string;
  readonly sequence: number;
  readonly data: Buffer;
}

/** Names a message: by its sequence, as the first of a subject from a sequence on, or as the last of a subject. */
export type MessageQuery =
  | { readonly seq: number }
  | { readonly seq: number; readonly next_by_subj: string }
  | { readonly last_by_subj: string };

/** The condition under which a stream stores a message. */
export interface ExpectedStream {
  /** The stream's last sequence. */
  readonly last: number;
  /** The sequence of the last message of one subject; 0 if there is none. */
  readonly lastOf?: { readonly subject: string; readonly sequence: number };
}

interface Answer {
  readonly error?: { readonly err_code: number; readonly description: string };
}

/** The requests of JetStream's API that Feed needs, on one stream. Each is sent once. */
export class StreamApi {
  isConnected = true;
  /** Reject the requests that wait for an answer: after a reconnect, none will come. */
  private readonly waiting = new Set<() => void>();
  private hasGivenUp = false;

  constructor(
    readonly connection: NatsConnection,
    readonly stream: string,
    readonly listener: ConnectionListener,
  ) {
    void this.watchConnection();
  }

  private async watchConnection(): Promise<void> {
    for await (const status of this.connection.status()) {
      const { type } = status;
      if (type === 'error') this.onServerError(status.error);
      if (type !== 'disconnect' && type !== 'reconnect') continue;
      this.isConnected = type === 'reconnect';
      if (!this.isConnected) for (const reject of this.waiting) reject();
      this.listener.onConnection(this.isConnected);
    }
  }

  /** Rejects the requests that wait for an answer, and all further ones. */
  giveUp(): void {
    this.hasGivenUp = true;
    for (const reject of this.waiting) reject();
  }

  private onServerError(error: Error): void {
    if (error instanceof PermissionViolationError) {
      const { operation, subject } = error;
      const what = operation === 'publish' ? 'publish' : 'subscribe';
      this.listener.onRefusal(
        new SetupError(
          `the NATS user that Feed connects as may not ${what} to ${subject}: docs/operations.md, "Several replicas", ` +
            'lists what it must be allowed',
        ),
      );
    } else if (
      error instanceof AuthorizationError ||
      error instanceof UserAuthenticationExpiredError
    )
      this.listener.onRefusal(
        new SetupError(
          `NATS does not take the user that Feed connects as any more (${error.message}): replace the file that ` +
            'FEED_NATS_CREDENTIALS names, if the user is expired or revoked. Feed reads it again by itself',
        ),
      );
  }

  /**
   * Sends, and rejects at once without a connection: what is sent then would only pile up, and be dropped. Rejects once there was no
   * answer for `timeout` milliseconds. If this process stood still meanwhile, an answer that has come to its socket counts.
   *
   * @param send rejects after the milliseconds that it is given
   */
  private answer<T>(
    send: (forgetAfter: number) => Promise<T>,
    timeout = ANSWER_TIMEOUT,
  ): Promise<T> {
    if (!this.isConnected) return Promise.reject(new UnansweredError('there is no connection'));
    if (this.hasGivenUp) return Promise.reject(new UnansweredError('the process is about to end'));
    return new Promise((resolve, reject) => {
      const cut = (): void => {
        const why = this.hasGivenUp ? 'no answer before the end' : 'the connection was lost';
        reject(new UnansweredError(why));
      };
      this.waiting.add(cut);
      const late = (): void => reject(new UnansweredError(`no answer within ${timeout} ms`));
      // Immediates run after node's reads.
      const timer = setTimeout(() => setImmediate(late), timeout);
      send(FORGET_FACTOR * timeout)
        .then(resolve, (error: unknown) => reject(unanswered(error)))
        .finally(() => {
          clearTimeout(timer);
          this.waiting.delete(cut);
        });
    });
  }

  /** @throws RefusedError, UnansweredError */
  private async request<T>(
    operation: string,
    body: object | undefined,
    timeout = ANSWER_TIMEOUT,
  ): Promise<T> {
    const subject = `$JS.API.${operation}`;
    const data = body && JSON.stringify(body);
    const answer = await this.answer(
      (forgetAfter) => this.connection.request(subject, data, { timeout: forgetAfter }),
      timeout,
    );
    const parsed = JSON.parse(answer.string()) as T & Answer;
    if (parsed.error) throw refusal(parsed.error);
    return parsed;
  }

  /**
   * Returns the stream's state, as its leader knows it.
   *
   * @param subjects also returns how many messages each of these subjects has, from the one at `offset` on
   */
  info(subjects?: { filter: string; offset: number }): Promise<StreamInfo> {
    const body = subjects && { subjects_filter: subjects.filter, offset: subjects.offset };
    return this.request(`STREAM.INFO.${this.stream}`, body);
  }

  create(config: StreamConfig): Promise<StreamInfo> {
    return this.request(`STREAM.CREATE.${this.stream}`, config, 10_000);
  }

  update(config: StreamConfig): Promise<StreamInfo> {
    return this.request(`STREAM.UPDATE.${this.stream}`, config, 10_000);
  }

  /** Asks the stream's leader for a message; undefined if there is none. */
  async message(query: MessageQuery): Promise<StoredMessage | undefined> {
    interface Found {
      readonly message: { readonly subject: string; readonly seq: number; readonly data?: string };
    }
    try {
      const { message } = await this.request<Found>(`STREAM.MSG.GET.${this.stream}`, query);
      const data = Buffer.from(message.data ?? '', 'base64');
      return { subject: message.subject, sequence: message.seq, data };
    } catch (error) {
      if (error instanceof RefusedError && error.code === CODE.noMessage) return undefined;
      throw error;
    }
  }

  /** Removes a subject's messages before a sequence. */
  async purge(subject: string, before: number): Promise<void> {
    await this.request(`STREAM.PURGE.${this.stream}`, { filter: subject, seq: before });
  }

  createConsumer(config: object): Promise<{ readonly name: string }> {
    return this.request(`CONSUMER.CREATE.${this.stream}`, { stream_name: this.stream, config });
  }

  async deleteConsumer(name: string): Promise<void> {
    await this.request(`CONSUMER.DELETE.${this.stream}.${name}`, undefined, 1_000);
  }

  /**
   * Asks any server of the stream for messages of a subject from a sequence on, up to about `maxBytes`. The server may
   * lag behind the leader, so messages may be missing at the end, or all of them.
   */
  messages(subject: string, from: number, maxBytes: number): Promise<StoredMessage[]> {
    return this.answer((forgetAfter) => this.getBatch(subject, from, maxBytes, forgetAfter));
  }

  private async getBatch(
    subject: string,
    from: number,
    maxBytes: number,
    forgetAfter: number,
  ): Promise<StoredMessage[]> {
    const inbox = createInbox();
    const done = Promise.withResolvers<StoredMessage[]>();
    const found: StoredMessage[] = [];
    const subscription = this.connection.subscribe(inbox, {
      callback: (error, message) => {
        if (error) return done.reject(unanswered(error));
        const { headers } = message;
        // 204 is the end, 404 means that there is none, 503 that nobody answers.
        if (headers && headers.code >= 400 && headers.code !== 404)
          return done.reject(new UnansweredError(`direct get: ${headers.code}`));
        if (!headers || headers.code > 0) return done.resolve(found);
        found.push({
          subject: headers.get('Nats-Subject'),
          sequence: Number(headers.get('Nats-Sequence')),
          data: Buffer.from(message.data),
        });
      },
    });
    const timer = setTimeout(
      () => done.reject(new UnansweredError('direct get: no answer')),
      forgetAfter,
    );
    try {
      const query = { seq: from, next_by_subj: subject, batch: 256, max_bytes: maxBytes };
      this.connection.publish(`$JS.API.DIRECT.GET.${this.stream}`, JSON.stringify(query), {
        reply: inbox,
      });
      return await done.promise;
    } finally {
      clearTimeout(timer);
      subscription.unsubscribe();
    }
  }

  /** Stores one message, whatever the stream has. Returns its sequence. */
  async append(subject: string, data: Uint8Array): Promise<number> {
    const answer = await this.answer((forgetAfter) =>
      this.connection.request(subject, data, { timeout: forgetAfter }),
    );
    const { error, seq } = JSON.parse(answer.string()) as Answer & { readonly seq: number };
    if (error) throw refusal(error);
    return seq;
  }

  /**
   * Stores messages, all or none, if the stream is as expected. Returns the sequence of the last one.
   *
   * @throws RefusedError, UnansweredError
   */
  async publish(
    messages: readonly { readonly subject: string; readonly data: Uint8Array }[],
    { last: expectedLast, lastOf }: ExpectedStream,
    batchId: string,
  ): Promise<number> {
    const { connection } = this;
    this.refuseTooLarge(messages);
    const headersOf = (index: number): MsgHdrs => {
      const headers = newHeaders();
      if (index === 0) headers.set('Nats-Expected-Last-Sequence', String(expectedLast));
      if (index === 0 && lastOf) {
        headers.set('Nats-Expected-Last-Subject-Sequence', String(lastOf.sequence));
        headers.set('Nats-Expected-Last-Subject-Sequence-Subject', lastOf.subject);
      }
      if (messages.length > 1) {
        headers.set('Nats-Batch-Id', batchId);
        headers.set('Nats-Batch-Sequence', String(index + 1));
        if (index === messages.length - 1) headers.set('Nats-Batch-Commit', '1');
      }
      return headers;
    };
    const last = messages.length - 1;
    const answer = await this.answer((forgetAfter) => {
      for (let i = 0; i < last; i++)
        connection.publish(messages[i].subject, messages[i].data, { headers: headersOf(i) });
      const { subject, data } = messages[last];
      const options = { headers: headersOf(last), timeout: forgetAfter };
      return connection.request(subject, data, options);
    });
    const { error, seq } = JSON.parse(answer.string()) as Answer & { readonly seq: number };
    if (error) throw refusal(error);
    return seq;
  }

  /**
   * The client library refuses what is too large for the server, and says so as it says that there is no answer: a commit would be tried
   * again for long, and others would wait behind it. A start looks at `max_payload`, but the server may get another one later.
   */
  private refuseTooLarge(messages: readonly { readonly data: Uint8Array }[]): void {
    const most = this.connection.info?.max_payload ?? Infinity;
    let size = 0;
    for (const { data } of messages) size = Math.max(size, data.length + HEADERS_BYTES);
    if (size <= most) return;
    throw new RefusedError(
      CODE.messageTooLarge,
      `the NATS server takes messages of up to ${most} bytes, and this one has ${size}: raise its max_payload, or lower FEED_MAX_EVENT_BYTES`,
    );
  }
}

function refusal({ err_code: code, description }: NonNullable<Answer['error']>): Error {
  if (!NOT_NOW.has(code)) return new RefusedError(code, description);
  const error = new UnansweredError(`${description} (${code})`);
  error.code = code;
  return error;
}

const unanswered = (cause: unknown): UnansweredError =>
  cause instanceof UnansweredError
    ? cause
    : new UnansweredError(cause instanceof Error ? cause.message : String(cause), { cause });
