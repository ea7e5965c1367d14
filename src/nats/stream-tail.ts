import { createInbox, type Msg, type Subscription } from '@nats-io/transport-node';
import { setTimeout as sleep } from 'node:timers/promises';
import { isLasting, refused } from './refusal.js';
import { RefusedError, type StreamApi } from './stream-api.js';

/** The server says this often (milliseconds) that it is there, while the stream gets nothing. */
const HEARTBEAT = 1_000;
/** After this much silence (milliseconds), the consumer is taken for gone. */
const SILENCE = 3_000;
/** How long (milliseconds) the server keeps a consumer of which nobody takes messages, such as after a crash. */
const INACTIVE_THRESHOLD = 30_000;
const RETRY_INTERVAL = 200;

export interface TailListener {
  /** A message of the stream: each once, in order, from the sequence that `next` named. */
  onMessage(sequence: number, subject: string, data: Buffer): void;
  /** Called when all up to a sequence was delivered, or was removed before. */
  onIdle(sequence: number): void;
  /**
   * Called before a consumer is made, the first one too. Returns the sequence that it begins with, or undefined if the tail
   * is to stop.
   */
  next(): Promise<number | undefined>;
  /** Called when the server has made a consumer: messages come from now on. */
  onFollowing?(): void;
}

/**
 * Follows the whole stream with an ephemeral push consumer. If messages are missing or the consumer is silent, it makes
 * another one from where the listener is. A consumer of a deleted stream is silent, and nothing else says so.
 */
export class StreamTail {
  private subscription: Subscription | undefined;
  private consumer: string | undefined;
  /** Grows with each consumer. Messages of earlier ones are dropped. */
  private generation = 0;
  private heardAt = 0;
  /** The listener has not said yet where to begin, which takes as long as NATS does not answer. */
  private isAsking = false;
  private isStopped = false;
  private readonly watchdog: NodeJS.Timeout;

  constructor(
    private readonly api: StreamApi,
    private readonly listener: TailListener,
  ) {
    this.watchdog = setInterval(() => {
      if (!this.isAsking && performance.now() - this.heardAt > SILENCE) this.follow();
    }, HEARTBEAT / 2).unref();
    this.follow();
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    this.generation++;
    clearInterval(this.watchdog);
    if (this.api.connection.isClosed()) return;
    this.subscription?.unsubscribe();
    // Else the stream counts this consumer for INACTIVE_THRESHOLD.
    if (this.consumer) await this.api.deleteConsumer(this.consumer).catch(() => {});
  }

  /** Makes a consumer, instead of the one before. */
  private follow(): void {
    this.heardAt = performance.now();
    void this.tryToFollow(++this.generation).catch(() => {});
  }

  /** Answers flow control, which the server waits for, and reads what a heartbeat says. */
  private onServerMessage(message: Msg, delivered: number): void {
    const stalled = message.headers?.get('Nats-Consumer-Stalled');
    if (message.reply) message.respond();
    else if (stalled) this.api.connection.publish(stalled);
    else if (headerOf(message, 'Nats-Last-Consumer') > delivered) this.follow();
    else this.listener.onIdle(headerOf(message, 'Nats-Last-Stream'));
  }

  private async askListener(): Promise<number | undefined> {
    this.isAsking = true;
    try {
      return await this.listener.next();
    } finally {
      this.isAsking = false;
      this.heardAt = performance.now();
    }
  }

  private async tryToFollow(generation: number): Promise<void> {
    if (this.api.connection.isClosed()) return;
    this.subscription?.unsubscribe();
    const from = await this.askListener();
    if (from === undefined || generation !== this.generation) return;
    const inbox = createInbox();
    let delivered = 0;
    this.subscription = this.api.connection.subscribe(inbox, {
      callback: (error, message) => {
        // An error comes without a message, and the connection's listener is told of it.
        if (error || generation !== this.generation) return;
        this.heardAt = performance.now();
        const place = placeOf(message);
        if (!place) return this.onServerMessage(message, delivered);
        if (place.consumerSequence !== ++delivered) return this.follow();
        this.listener.onMessage(place.sequence, message.subject, Buffer.from(message.data));
      },
    });
    while (!this.isStopped && generation === this.generation) {
      try {
        const { name } = await this.api.createConsumer({
          deliver_subject: inbox,
          deliver_policy: 'by_start_sequence',
          opt_start_seq: from,
          ack_policy: 'none',
          flow_control: true,
          idle_heartbeat: HEARTBEAT * 1e6,
          mem_storage: true,
          num_replicas: 1,
          inactive_threshold: INACTIVE_THRESHOLD * 1e6,
        });
        if (generation !== this.generation) {
          await this.api.deleteConsumer(name).catch(() => {});
          return;
        }
        this.consumer = name;
        this.listener.onFollowing?.();
        return;
      } catch (error) {
        if (error instanceof RefusedError && isLasting(error))
          this.api.listener.onRefusal(
            refused(`nobody can follow the stream ${this.api.stream}`, error),
          );
        await sleep(RETRY_INTERVAL);
      }
    }
  }
}

/** Returns the number in a header; 0 without it. */
const headerOf = ({ headers }: Msg, name: string): number => Number(headers?.get(name) ?? 0);

/**
 * Returns where a delivered message stands in the stream and in the consumer; undefined for a message of the server itself.
 * Its reply subject is $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer's sequence>.<time>.<pending>, with
 * two more tokens behind $JS.ACK where the server has a domain.
 */
function placeOf({ reply = '' }: Msg): { sequence: number; consumerSequence: number } | undefined {
  if (!reply.startsWith('$JS.ACK.')) return undefined;
  const tokens = reply.split('.');
  const at = tokens.length > 9 ? 7 : 5;
  return { sequence: Number(tokens[at]), consumerSequence: Number(tokens[at + 1]) };
}
