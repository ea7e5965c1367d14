import {
  connect,
  EARLIEST,
  type FeedClient,
  follow,
  readToHead,
  type StoredEvent,
} from './feed-client.ts';

/**
 * A watcher calls this for each event, with the number of events so far, and waits for the promise, if there is one.
 */
export type Handler = (count: number) => Promise<void> | undefined;

/** Watches a topic, and keeps the events that it gets. */
export class Watcher {
  readonly name: string;
  readonly events: StoredEvent[] = [];
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
    await this.connected(address, async (client) => {
      for await (const event of follow(client, topic, signal, () => this.connections++)) {
        this.events.push(event);
        // While it waits here, it takes nothing from the network.
        await this.handle(this.events.length);
        if (this.events.length >= wanted) break;
      }
    });
  }

  /** Reads from its last event to the newest event that the topic has now. */
  async readToHead(address: string, topic: string, signal: AbortSignal): Promise<void> {
    const last = this.events.at(-1);
    const start = last ? { afterCursor: last.cursor } : EARLIEST;
    await this.connected(address, async (client) => {
      for await (const event of readToHead(client, topic, start, signal)) this.events.push(event);
    });
  }

  private async connected(
    address: string,
    work: (client: FeedClient) => Promise<void>,
  ): Promise<void> {
    const client = connect(address); // each watcher has its own connection
    const startedAt = performance.now();
    try {
      await work(client);
    } finally {
      this.seconds = (performance.now() - startedAt) / 1000;
      client.close();
    }
  }
}
