import {
  connect,
  EARLIEST,
  type FeedClient,
  follow,
  readToHead,
  type StoredEvent,
} from './feed-client.ts';

/** What a watcher does with an event, besides keeping it: nothing, or something that takes its time. */
export type Handler = (count: number) => Promise<void> | undefined;

/** Keeps what it gets. */
export class Watcher {
  readonly name: string;
  readonly events: StoredEvent[] = [];
  connections = 0;
  seconds = 0;
  private readonly handle: Handler;

  constructor(name: string, handle: Handler = () => undefined) {
    this.name = name;
    this.handle = handle;
  }

  /** Follows a topic until it has as many events as there will be. */
  async follow(address: string, topic: string, wanted: number, signal: AbortSignal): Promise<void> {
    await this.connected(address, async (client) => {
      for await (const event of follow(client, topic, signal, () => this.connections++)) {
        this.events.push(event);
        // While it waits here it takes nothing from the network.
        await this.handle(this.events.length);
        if (this.events.length >= wanted) break;
      }
    });
  }

  /** Reads on to the newest event that a topic has now. */
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
