import { onTestFinished } from 'vitest';
import {
  connect,
  type ConnectOptions,
  type Event,
  type Feed,
  type Watch,
} from '@feed-events/client';
import { freeAddresses } from '../../test/support/ports.js';
import { ServiceProcess, temporaryDirectory } from '../../test/support/service.js';
import { within } from '../../test/support/wait.js';
import { FaultProxy } from './fault-proxy.js';

/** A real service that can be killed and started again on the same port and log, and a proxy in front of it. */
export class Subject {
  private constructor(
    public service: ServiceProcess,
    readonly proxy: FaultProxy,
    private readonly settings: Record<string, string>,
  ) {}

  static async start(settings: Record<string, string> = {}): Promise<Subject> {
    const all = {
      ...(await freeAddresses()),
      FEED_DATA_DIR: temporaryDirectory(),
      ...settings,
    };
    const proxy = await FaultProxy.start(() => all.FEED_GRPC_ADDRESS);
    return new Subject(await ServiceProcess.start(all), proxy, all);
  }

  get address(): string {
    return this.settings.FEED_GRPC_ADDRESS;
  }

  /** A client through the proxy that comes back soon. */
  client(options: ConnectOptions = {}): Feed {
    return client(this.proxy.address, options);
  }

  async restart(settings: Record<string, string> = {}): Promise<void> {
    this.service = await ServiceProcess.start({ ...this.settings, ...settings });
  }
}

export function client(addresses: string | string[], options: ConnectOptions = {}): Feed {
  const feed = connect(addresses, { retry: { initial: 20, max: 300 }, ...options });
  onTestFinished(() => feed.close());
  return feed;
}

/** Takes so many events of a watch and ends it; the last one counts as handled. */
export async function take(watch: Watch, count: number): Promise<Event[]> {
  const taken: Event[] = [];
  const all = (async () => {
    for await (const event of watch) {
      taken.push(event);
      if (taken.length === count) {
        watch.accept();
        break;
      }
    }
  })();
  await within(all, () => `${count} events; ${taken.length} have come`, 120_000);
  return taken;
}

export function bodies(events: readonly Event[]): string[] {
  return events.map(({ body }) => body);
}

/** Texts with numbers, from `from` up to and without `to`. */
export function numbers(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) => String(from + i));
}
