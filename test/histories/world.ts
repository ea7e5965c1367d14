import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type FeedClient } from '../support/client.js';
import { ServiceProcess } from '../support/service.js';
import type { Weather } from './plan.js';

/** A service that is restarted and killed while histories run on it. */
export class World {
  restarts = 0;
  /** So many of the restarts. */
  kills = 0;
  private service: Promise<ServiceProcess>;
  private readonly clients = new Map<string, FeedClient>();

  constructor(private readonly settings: Record<string, string>) {
    this.service = ServiceProcess.start(settings);
  }

  /** A connection of this name to the service as it is now, as soon as there is one. */
  async client(name: string): Promise<FeedClient> {
    const { grpcAddress } = await this.service;
    let client = this.clients.get(name);
    if (!client) this.clients.set(name, (client = connect(grpcAddress)));
    return client;
  }

  async weather({ restarts }: Weather): Promise<void> {
    for (const { after, signal } of restarts) {
      await sleep(after);
      await this.restart(signal);
    }
  }

  /** Ends it as a user would. */
  async end(): Promise<{ code: number | null; signal: string | null }> {
    this.disconnect();
    return (await this.service).kill('SIGTERM');
  }

  private async restart(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const before = await this.service;
    const { promise, resolve, reject } = Promise.withResolvers<ServiceProcess>();
    this.service = promise;
    promise.catch(() => {}); // whoever waits for it gets the error
    const { code } = await before.kill(signal);
    if (signal === 'SIGTERM' && code !== 0) reject(new Error(`the service ended with ${code}`));
    this.disconnect();
    this.restarts++;
    if (signal === 'SIGKILL') this.kills++;
    ServiceProcess.start(this.settings).then(resolve, reject);
    await promise;
  }

  private disconnect(): void {
    for (const client of this.clients.values()) client.close();
    this.clients.clear();
  }
}
