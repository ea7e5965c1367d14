import { Injectable } from '@nestjs/common';
import { ChatMessageError, chatMessagesIn, echoes } from '../wire/chat-message.js';
import {
  type Frames,
  MessageTooLargeError,
  MessageTruncatedError,
  type ReceivedFrames,
} from '../wire/frames.js';
import { FeedError } from './errors.js';

/** Talks with clients: each message without a room gets its echo, in order. */
@Injectable()
export class Chats {
  /** Chats under way. */
  open = 0;

  /**
   * Ends when the stream does. The next messages are taken once the answers to the last are.
   *
   * @throws FeedError
   */
  async *chat(stream: AsyncIterable<ReceivedFrames>): AsyncGenerator<Frames, void, void> {
    this.open++;
    try {
      for await (const received of stream) {
        const messages = [...chatMessagesIn(received)];
        if (messages.some(({ room }) => room !== '')) {
          throw new FeedError(
            'ROOMS_UNAVAILABLE',
            'this version has no rooms: send messages without a room',
          );
        }
        yield echoes(messages);
      }
    } catch (error) {
      throw isBadMessage(error) ? new FeedError('MESSAGE_INVALID', error.message) : error;
    } finally {
      this.open--;
    }
  }
}

function isBadMessage(error: unknown): error is Error {
  return (
    error instanceof ChatMessageError ||
    error instanceof MessageTooLargeError ||
    error instanceof MessageTruncatedError
  );
}
