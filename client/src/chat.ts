import { setImmediate as nextTurn } from 'node:timers/promises';
import { abortWith } from './abort-with.js';
import { abortedByConsumer } from './aborted-by-consumer.js';
import { Backoff, pause, type RetryOptions } from './backoff.js';
import { Callbacks } from './callbacks.js';
import { FeedError, feedError, isRetryable } from './errors.js';
import { ChatMessage } from './gen/feed/v1/feed.js';
import type { Call } from './grpc/call.js';
import { decode, frame } from './grpc/frames.js';
import type { OpenCall } from './open-call.js';
import { checkText } from './texts.js';

/** The state of a chat. Rooms keep no history: a chat misses the messages that others send while it is not joined. */
export type ChatState =
  /** It connects for the first time. */
  | { readonly name: 'connecting' }
  /** The server has taken its join. */
  | { readonly name: 'joined' }
  /** It broke, and joins again after `wait` milliseconds. `attempt` counts from 1 since the last message. */
  | {
      readonly name: 'reconnecting';
      readonly reason: FeedError;
      readonly attempt: number;
      readonly wait: number;
    }
  /** It ended, by leave(), its signal or an error. */
  | { readonly name: 'ended' };

export interface ChatOptions {
  /** The name that others see. */
  readonly from: string;
  /** Leaves the room: the iteration is then done, without an error. */
  readonly signal?: AbortSignal;
  /** Called at each change of the state. What it throws ends the chat. */
  readonly onState?: (state: ChatState) => void;
}

/** How long (milliseconds) the server may take to answer a join. */
const ANSWER_WITHIN = 10_000;

/** How long (milliseconds) the server may take to end a chat that leaves. What it has not taken by then may be lost. */
const LEAVE_WITHIN = 10_000;

/** A call that has joined the room. */
interface Membership {
  readonly call: Call;
  /** The room's messages that came before the server's answer to the join. */
  readonly early: readonly ChatMessage[];
}

/**
 * A member of a room. Iterate over it once for what others say. It joins when the iteration begins, or with the first send().
 * Iterate even if you only send, because the server ends members who read nothing. The iteration throws a FeedError that
 * another attempt would not mend.
 */
export class Chat implements AsyncIterable<ChatMessage>, AsyncDisposable {
  private readonly backoff: Backoff;
  private readonly callbacks = new Callbacks();
  private readonly leaving = new AbortController();
  private joined: Promise<Membership> | undefined;
  private iteration: AsyncGenerator<ChatMessage, void, void> | undefined;
  /** Leaves nothing of the chat in the signals of the user and of the client. Set once the chat has begun to connect. */
  private release: (() => void) | undefined;
  private isLeaving = false;
  /** The error that ended the chat, once it was thrown to the chat's user. */
  private thrown: unknown;

  /** @internal */
  constructor(
    private readonly openCall: OpenCall,
    readonly room: string,
    private readonly options: ChatOptions,
    private readonly closing: AbortSignal,
    retry: RetryOptions | undefined,
  ) {
    const { from } = options;
    checkText('the room of a chat', room);
    checkText("the option from, the chat's name,", from);
    this.backoff = new Backoff(retry);
  }

  /** Fires when the chat is to end at once, whoever wants that. */
  private get signal(): AbortSignal {
    return this.leaving.signal;
  }

  /**
   * Says something to all others in the room. Resolves when flow control has taken the message, which does not mean that anyone
   * got it: when the connection breaks, messages on their way are lost.
   *
   * @throws FeedError if the message can't be sent: the room's name is invalid, for example, or the chat has ended. TypeError for what
   * is no text: the chat goes on
   */
  async send(text: string): Promise<void> {
    checkText('a message', text);
    for (;;) {
      const joined = this.join();
      const { call } = await joined;
      // A write after the end of the stream would break it, and with it what was said before.
      if (this.isLeaving) throw new FeedError('CANCELLED', 'the chat was left');
      try {
        await call.write(frame(encode({ from: this.options.from, text, room: this.room })));
        return;
      } catch (error) {
        await this.recover(joined, error);
      }
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<ChatMessage, void, void> {
    if (this.iteration) throw new Error('a chat can be iterated over once: make another one');
    this.iteration = abortedByConsumer(this.messages(), this.leaving);
    return this.iteration;
  }

  /**
   * Leaves the room once the server has taken what was sent. The iteration goes on until then, and ends without an error.
   *
   * @throws FeedError if the server refused what was sent, the call broke before the server had all of it, or the server has not said
   * within 10 s that it has. An error that send(), the iteration or another leave() has thrown is not thrown again
   */
  async leave(): Promise<void> {
    this.isLeaving = true;
    // A chat that is still connecting is not waited for: it has sent nothing.
    const joined = await Promise.race([this.joined?.catch(() => undefined), pause(0, undefined)]);
    let error: FeedError | undefined;
    if (joined) {
      joined.call.end();
      const late = pause(LEAVE_WITHIN, this.signal)
        .then(() => nextTurn()) // If this process stood still, node may not have read the answer yet.
        .then(() => (this.signal.aborted ? undefined : unheard()));
      error = await Promise.race([joined.call.ended, late]);
    }
    const isCancelled = error?.status === 'CANCELLED' && this.signal.aborted;
    this.leaving.abort();
    if (!error || isCancelled || error === this.thrown) return;
    this.thrown = error;
    throw error;
  }

  /** Leaves the room, and ends the iteration. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.leave();
    } finally {
      await this.iteration?.return();
    }
  }

  private async *messages(): AsyncGenerator<ChatMessage, void, void> {
    try {
      for (;;) {
        const joined = this.join();
        const membership = await joined;
        try {
          yield* this.messagesOf(membership);
          if (this.isLeaving) return;
          throw new FeedError('UNAVAILABLE', 'the server ended the chat');
        } catch (error) {
          if (this.isLeaving) return; // leave() throws it.
          await this.recover(joined, error);
        }
      }
    } catch (error) {
      if (!this.signal.aborted) throw error;
    } finally {
      this.leaving.abort();
      (await this.joined?.catch(() => undefined))?.call.cancel();
      this.enter({ name: 'ended' });
    }
  }

  private async *messagesOf({ call, early }: Membership): AsyncGenerator<ChatMessage, void, void> {
    let messages: Iterable<ChatMessage> = early;
    for (;;) {
      yield* messages;
      const read = await call.read();
      if (!read) return;
      this.backoff.reset();
      messages = decodeEach(read);
    }
  }

  /** Resolves with the call that has joined the room: the same call for all callers until it breaks. */
  private join(): Promise<Membership> {
    this.joined ??= this.openRoom();
    return this.joined;
  }

  private async openRoom(): Promise<Membership> {
    if (!this.release) {
      this.release = abortWith(this.leaving, this.options.signal, this.closing);
      this.enter({ name: 'connecting' });
    }
    for (;;) {
      let call: Call | undefined;
      try {
        call = await this.openCall('Chat', this.signal);
        call.endAfterSilence(ANSWER_WITHIN);
        const { from } = this.options;
        await call.write(frame(encode({ from, text: '', room: this.room })));
        // Nothing answers a join. The echo of a message without a room comes after the server has taken the messages before it.
        await call.write(frame(encode({ from, text: '', room: '' })));
        const early = await messagesBeforeEcho(call);
        call.endAfterSilence(0); // A room may be silent for as long as it likes.
        this.enter({ name: 'joined' });
        return { call, early };
      } catch (error) {
        call?.cancel();
        await this.wait(error);
      }
    }
  }

  /**
   * Makes join() open another call. Both send() and the iteration may notice that one broke: only the first of them does it.
   *
   * @throws the error, if another call would not mend it
   */
  private async recover(broken: Promise<Membership>, error: unknown): Promise<void> {
    if (this.signal.aborted || this.isLeaving || !isRetryable(error)) {
      this.release?.();
      if (!this.isLeaving) this.thrown = error;
      throw error;
    }
    if (this.joined === broken) this.joined = this.wait(error).then(() => this.openRoom());
    await this.joined;
  }

  /** Waits before the next attempt. @throws the error, if another attempt would fail as well */
  private async wait(error: unknown): Promise<void> {
    if (this.signal.aborted || this.callbacks.hasThrown || !isRetryable(error)) {
      this.release?.();
      throw error;
    }
    const wait = this.backoff.nextAfter(error);
    this.enter({
      name: 'reconnecting',
      reason: error,
      attempt: this.backoff.attempt,
      wait,
    });
    await pause(wait, this.signal);
  }

  private enter(state: ChatState): void {
    this.callbacks.run(() => this.options.onState?.(state));
  }
}

/** Decodes each message when it is asked for, so that one that can't be decoded keeps back none before it. */
function* decodeEach(messages: readonly Uint8Array[]): Generator<ChatMessage, void, void> {
  for (const message of messages) yield decode(ChatMessage, message);
}

/** Reads the messages of a call up to the first echo, and returns those of rooms. Echoes are of no room. */
async function messagesBeforeEcho(call: Call): Promise<readonly ChatMessage[]> {
  const early: ChatMessage[] = [];
  for (;;) {
    const messages = await call.read();
    if (!messages) throw new FeedError('UNAVAILABLE', 'the server ended the chat');
    const decoded = messages.map((message) => decode(ChatMessage, message));
    const ofRooms = decoded.filter(({ room }) => room !== '');
    early.push(...ofRooms);
    if (ofRooms.length < decoded.length) return early;
  }
}

function unheard(): FeedError {
  return feedError(
    'DEADLINE_EXCEEDED',
    `the server has not said within ${LEAVE_WITHIN / 1000} s that it has all that was said: some of it may be lost`,
    {},
  );
}

function encode(message: ChatMessage): Uint8Array {
  return ChatMessage.encode(message).finish();
}
