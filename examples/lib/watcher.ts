import { connect, type Event } from '@feed-events/client';

/**
 * A watcher calls this for each event, with the number of events so far, and waits for the promise, if there is one.
 */
export type Handler = (count: number) => Promise<void> | undefined;

/** Watches a topic, and keeps the events that it gets. */
export class Watcher {
  readonly name: string;
  readonly events: Event[] = [];
  /** How often its watch was opened: once, and again after each break. */
  connections = 0;
  /** The duration of its last follow() or readToHead(). */
  seconds = 0;
  private readonly handle: Handler;

  constructor(name: string, handle: Handler = () => undefined) {
    this.name = name;
    this.handle = handle;
  }

  /** Follows a topic until it has `wanted` events. */
  async follow(address: string, topic: string, wanted: number, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    await this.watch(address, topic, AbortSignal.any([signal, stop.signal]), async (count) => {
      // While it waits here, it takes nothing from the network.
      await this.handle(count);
      if (count >= wanted) stop.abort();
    });
  }

  /** Reads from its last event to the newest event that the topic has now. */
  async readToHead(address: string, topic: string, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const isLive = (): void => stop.abort();
    await this.watch(address, topic, AbortSignal.any([signal, stop.signal]), undefined, isLive);
  }

  private async watch(
    address: string,
    topic: string,
    signal: AbortSignal,
    handle?: Handler,
    onLive?: () => void,
  ): Promise<void> {
    // Each watcher has a connection of its own. The service is back within a second, so they look often.
    await using feed = connect(address, { retry: { max: 500 } });
    const startedAt = performance.now();
    const last = this.events.at(-1);
    const from = last ? { cursor: last.cursor } : 'earliest';
    const watch = feed.watch(topic, {
      from,
      signal,
      onState: ({ name }) => {
        if (name === 'behind' || name === 'live') this.connections++;
        if (name === 'live') onLive?.();
      },
    });
    for await (const event of watch) {
      this.events.push(event);
      await handle?.(this.events.length);
    }
    this.seconds = (performance.now() - startedAt) / 1000;
  }
}
