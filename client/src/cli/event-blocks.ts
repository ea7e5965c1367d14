import { setImmediate as nextTurn } from 'node:timers/promises';
import { encodedOf } from '../encoded.js';
import type { Event } from '../gen/feed/v1/feed.js';

/** A block is closed once its events have this many bytes. */
const BLOCK_BYTES = 2 ** 20;

/**
 * Reads events ahead while the block before is sent, and yields what has come since: an event at once where they come slowly, up to
 * 1 MiB where they come fast. Then the events wait where they come from.
 *
 * @param events were decoded by EncodedEvent
 */
export async function* eventBlocks(
  events: AsyncIterable<Event>,
): AsyncGenerator<readonly Event[], void, void> {
  let block: Event[] = [];
  let bytes = 0;
  let end: { readonly error?: unknown } | undefined;
  let wakeReader = (): void => {};
  let wakeTaker = (): void => {};
  const read = async (): Promise<void> => {
    for await (const event of events) {
      block.push(event);
      bytes += encodedOf(event)!.length;
      wakeTaker();
      if (bytes >= BLOCK_BYTES) await new Promise<void>((resolve) => (wakeReader = resolve));
    }
  };
  const finish = (result: { readonly error?: unknown }): void => {
    end = result;
    wakeTaker();
  };
  void read().then(
    () => finish({}),
    (error: unknown) => finish({ error }),
  );
  const isWaiting = (): boolean => block.length === 0 && !end;
  try {
    for (;;) {
      while (isWaiting()) await new Promise<void>((resolve) => (wakeTaker = resolve));
      if (block.length > 0) {
        await nextTurn(); // What has come in one piece is in one block.
        const whole = block;
        block = [];
        bytes = 0;
        wakeReader();
        yield whole;
      } else if (end && 'error' in end) throw end.error;
      else return;
    }
  } finally {
    wakeReader();
  }
}
