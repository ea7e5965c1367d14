import { Injectable } from '@nestjs/common';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Broker, type RoomMember, type RoomSeat } from '../broker/broker.js';
import {
  chatMessagesIn,
  type ChatMessageView,
  echoes,
  framedMessage,
} from '../wire/chat-message.js';
import {
  BadMessageError,
  type Frames,
  type FrameSource,
  type ReceivedFrames,
} from '../wire/frames.js';
import { topicProblem } from '../wire/topic.js';
import { FeedError } from './errors.js';
import type { CallRecord } from './live-calls.js';
import { Outbox } from './outbox.js';

/** What a member may have waiting of its rooms; beyond it, it is too slow for them. */
const QUEUE_MESSAGES = 256;
const QUEUE_BYTES = 256 * 1024;

/** A chat can be in so many rooms at a time. */
const MAX_ROOMS = 16_384;

/**
 * So many bytes of messages are answered at a time, each counted with what a view of it and its answer cost beside its
 * text: a client that does not read holds one such batch waiting and one being written.
 */
const ECHO_BYTES = 16 * 1024;
const ECHO_COST = 64;

/** So many turns of the event loop senders give a member that is behind; then nobody waits until it takes something. */
const PATIENCE_TURNS = 16;

/** The call that a chat answers: the chat counts what it sends, and may end it. */
export interface ChatCall extends CallRecord {
  /** Ends the call now, even where its client does not read. */
  abort(reason: Error): void;
  /** Ends the call once its client does not read what it was sent. */
  abortOnceUnread(reason: Error): void;
}

/** Talks with clients, and lets them talk in rooms. */
@Injectable()
export class Chats {
  /** Chats under way. */
  open = 0;
  /** Turns of the event loop that senders have waited. */
  turns = 0;
  private turn: Promise<void> | undefined;

  constructor(readonly broker: Broker) {}

  /** All who wait for it go on one after the other: each sees what those before it have said. */
  nextTurn(): Promise<void> {
    return (this.turn ??= nextTurn().then(() => {
      this.turns++;
      this.turn = undefined;
    }));
  }

  /**
   * Answers each message without a room with its echo, in order; the next messages are taken once the answers
   * are. Those with a room go to the others there. Ends when the client has, and what it is to get is sent; fails with a
   * FeedError.
   */
  chat(stream: AsyncIterable<ReceivedFrames>, call: ChatCall): FrameSource {
    return new Chat(this, stream, call);
  }
}

class Chat implements FrameSource, RoomMember {
  private readonly outbox = new Outbox();
  private readonly seats = new Map<string, RoomSeat>();
  private isReceiving = true;
  private isOpen = false;
  /** The turn in which it fell behind. */
  private behindSince = 0;
  private failure: Error | undefined;

  constructor(
    private readonly chats: Chats,
    private readonly stream: AsyncIterable<ReceivedFrames>,
    private readonly call: ChatCall,
  ) {}

  open(onMore: () => void): void {
    this.isOpen = true;
    this.chats.open++;
    this.outbox.onMore = onMore;
    this.receive().then(
      () => this.received(),
      (error: Error) => this.received(error instanceof BadMessageError ? invalid(error) : error),
    );
  }

  take(): Frames | undefined {
    const frames = this.outbox.take();
    if (frames) {
      this.call.events += frames.count;
      this.call.bytes += frames.bytes.length;
    } else if (this.isOver && this.failure !== undefined) {
      throw this.failure;
    }
    return frames;
  }

  get isOver(): boolean {
    return !this.isReceiving && this.outbox.isEmpty;
  }

  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.leave();
    this.chats.open--;
  }

  get isBehind(): boolean {
    return this.hasMuch && this.chats.turns - this.behindSince < PATIENCE_TURNS;
  }

  private get hasMuch(): boolean {
    const { count, bytes } = this.outbox.heard;
    return count > QUEUE_MESSAGES / 2 || bytes > QUEUE_BYTES / 2;
  }

  hear(framed: Buffer): void {
    const { count, bytes } = this.outbox.heard;
    if (count >= QUEUE_MESSAGES || (count > 0 && bytes + framed.length > QUEUE_BYTES)) {
      this.call.abort(
        new FeedError(
          'TOO_SLOW',
          `this chat had ${count} messages of its rooms waiting: read faster, or join again`,
        ),
      );
      return;
    }
    if (!this.hasMuch) this.behindSince = this.chats.turns;
    this.outbox.hear(framed);
  }

  /** The client has ended, or what it sent can't be taken: what is waiting is still sent. */
  private received(failure?: Error): void {
    this.isReceiving = false;
    this.failure = failure;
    this.leave();
    if (failure && this.isOpen) this.call.abortOnceUnread(failure);
    this.outbox.onMore();
  }

  private leave(): void {
    for (const seat of this.seats.values()) seat.leave();
    this.seats.clear();
    this.outbox.end();
  }

  private async receive(): Promise<void> {
    const { outbox, seats } = this;
    for await (const received of this.stream) {
      const unanswered: ChatMessageView[] = [];
      let bytes = 0;
      try {
        for (const message of chatMessagesIn(received)) {
          if (message.room === '') {
            unanswered.push(message);
            bytes += message.end - message.start + ECHO_COST;
            if (bytes < ECHO_BYTES) continue;
            outbox.put(echoes(unanswered));
            unanswered.length = bytes = 0;
            await outbox.taken();
            if (!this.isOpen) return;
            continue;
          }
          const seat = seats.get(message.room) ?? this.join(message.room);
          if (message.textStart === message.textEnd) continue;
          // Many may speak in one turn, in which those who are merely busy can take nothing.
          for (let turn = 0; turn < PATIENCE_TURNS && seat.isOthersBehind; turn++) {
            await this.chats.nextTurn();
            if (!this.isOpen) return;
          }
          seat.say(framedMessage(message));
        }
      } finally {
        // Also before a bad message ends the chat.
        if (unanswered.length > 0) outbox.put(echoes(unanswered));
      }
      if (unanswered.length > 0) await outbox.taken();
    }
  }

  private join(room: string): RoomSeat {
    const problem = topicProblem(room);
    if (problem !== undefined) throw new FeedError('TOPIC_INVALID', `room: ${problem}`);
    if (this.seats.size === MAX_ROOMS) {
      throw new FeedError(
        'TOO_MANY_ROOMS',
        `a chat is in at most ${MAX_ROOMS} rooms: open another one`,
      );
    }
    const seat = this.chats.broker.join(room, this);
    this.seats.set(room, seat);
    return seat;
  }
}

function invalid(error: Error): FeedError {
  return new FeedError('MESSAGE_INVALID', error.message, {}, { cause: error });
}
