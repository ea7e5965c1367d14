import { Injectable } from '@nestjs/common';
import { RoomInterruptedError, type RoomMember, Rooms, type RoomSeat } from '../broker/rooms.js';
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
import { limitExceeded } from './call-limits.js';
import { type Caller, requirePermission } from './caller.js';
import { FeedError } from './errors.js';
import { LimitHits } from './limit-hits.js';
import type { CallRecord } from './live-calls.js';
import { Outbox } from './outbox.js';
import { Subscriptions } from './subscriptions.js';
import { Traffic } from './traffic.js';

/** The most that a member's queue holds of its rooms' messages. With one more, the member is too slow for its rooms. */
const QUEUE_MESSAGES = 256;
const QUEUE_BYTES = 256 * 1024;

/** The most rooms that a chat may be in at a time. */
const MAX_ROOMS = 16_384;

/**
 * Messages are answered in batches of this many bytes. The next batch is made once the client has taken the one before,
 * so a client that does not read holds one batch that waits and one that is being written.
 */
const ECHO_BYTES = 16 * 1024;
/** Bytes that a message counts beside its text: a view of it, and the fields of its answer. */
const ECHO_COST = 64;

/** The call that a chat answers: the chat counts what it sends, and may end it. */
export interface ChatCall extends CallRecord {
  /** Ends the call now, even where its client does not read. */
  abort(reason: Error): void;
  /** Ends the call once its client does not read what it was sent. */
  abortOnceUnread(reason: Error): void;
}

/** Opens chats: each echoes its client's messages, and carries those of rooms. */
@Injectable()
export class Chats {
  /** Chats under way. */
  open = 0;

  constructor(
    readonly rooms: Rooms,
    /** The most rooms that may be open in this process. */
    private readonly maxRooms = Infinity,
    readonly traffic = new Traffic(),
    private readonly hits = new LimitHits(),
    private readonly subscriptions = new Subscriptions(),
  ) {}

  /**
   * Counts the room among the subscriptions of a chat that is about to join it.
   *
   * @throws FeedError LIMIT_EXCEEDED if that is one too many, or if no chat is in the room and no more rooms may be open
   */
  claimRoom(room: string, call: ChatCall): void {
    const { rooms, maxRooms } = this;
    if (rooms.open >= maxRooms && !rooms.isOpen(room)) {
      this.hits.add('FEED_MAX_ROOMS');
      throw limitExceeded('FEED_MAX_ROOMS', maxRooms, `${rooms.open} rooms are open`);
    }
    this.subscriptions.claim(call, 1);
  }

  /**
   * Answers each message without a room with its echo, in order. The next messages are read once the client has taken
   * the answers. A message with a room goes to the other members of that room. The returned source ends once the client has
   * ended and everything that waits for it is sent; it fails with a FeedError.
   *
   * @throws FeedError TOPIC_FORBIDDEN if the caller may not chat in any room, and so gets no echo either
   */
  chat(stream: AsyncIterable<ReceivedFrames>, caller: Caller, call: ChatCall): FrameSource {
    requirePermission(caller, 'chat');
    return new Chat(this, stream, caller, call);
  }
}

class Chat implements FrameSource, RoomMember {
  private readonly outbox = new Outbox();
  private readonly seats = new Map<string, RoomSeat>();
  /** False once no more messages of the client are read. */
  private isReading = true;
  private isOpen = false;
  private failure: Error | undefined;

  constructor(
    private readonly chats: Chats,
    private readonly stream: AsyncIterable<ReceivedFrames>,
    private readonly caller: Caller,
    private readonly call: ChatCall,
  ) {}

  open(onMore: () => void): void {
    this.isOpen = true;
    this.chats.open++;
    this.outbox.onMore = onMore;
    this.readMessages().then(
      () => this.stopReading(),
      (error: Error) => this.stopReading(asFeedError(error)),
    );
  }

  take(): Frames | undefined {
    const frames = this.outbox.take();
    if (frames) {
      this.call.events += frames.count;
      this.chats.traffic.chatSent += frames.count;
      this.call.bytes += frames.bytes.length;
    } else if (this.isOver && this.failure !== undefined) {
      throw this.failure;
    }
    return frames;
  }

  get isOver(): boolean {
    return !this.isReading && this.outbox.isEmpty;
  }

  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.leave();
    this.chats.open--;
  }

  get isCongested(): boolean {
    const { count, bytes } = this.outbox.fromRooms;
    return count > QUEUE_MESSAGES / 2 || bytes > QUEUE_BYTES / 2;
  }

  onInterruption(): void {
    this.call.abort(interrupted());
  }

  receive(framed: Buffer): void {
    const { count, bytes } = this.outbox.fromRooms;
    if (count >= QUEUE_MESSAGES || (count > 0 && bytes + framed.length > QUEUE_BYTES)) {
      this.call.abort(
        new FeedError(
          'TOO_SLOW',
          `this chat had ${count} messages of its rooms waiting: read faster, or join again`,
        ),
      );
      return;
    }
    this.outbox.putFromRoom(framed);
  }

  /** Called when the client has ended its messages, or has sent a bad one. What waits for the client is still sent. */
  private stopReading(failure?: Error): void {
    this.isReading = false;
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

  private async readMessages(): Promise<void> {
    const { outbox, seats } = this;
    const { traffic } = this.chats;
    let isFirst = true;
    for await (const received of this.stream) {
      if (isFirst) this.call.onMilestone?.('first message');
      isFirst = false;
      const unanswered: ChatMessageView[] = [];
      let bytes = 0;
      try {
        for (const message of chatMessagesIn(received)) {
          traffic.chatReceived++;
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
          const sending = seat.send(framedMessage(message, this.caller.principal));
          if (!sending) continue;
          await sending;
          if (!this.isOpen) return;
        }
      } finally {
        // The messages before a bad one are answered, too.
        if (unanswered.length > 0) outbox.put(echoes(unanswered));
      }
      if (unanswered.length > 0) await outbox.taken();
    }
    this.call.onMilestone?.('last message');
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
    requirePermission(this.caller, 'chat', room);
    this.chats.claimRoom(room, this.call);
    const seat = this.chats.rooms.join(room, this);
    this.seats.set(room, seat);
    this.call.notes.topic ??= room;
    return seat;
  }
}

function asFeedError(error: Error): Error {
  if (error instanceof BadMessageError)
    return new FeedError('MESSAGE_INVALID', error.message, {}, { cause: error });
  return error instanceof RoomInterruptedError ? interrupted() : error;
}

function interrupted(): FeedError {
  return new FeedError(
    'ROOM_INTERRUPTED',
    'messages between the replicas of the service may be lost: join again',
  );
}
