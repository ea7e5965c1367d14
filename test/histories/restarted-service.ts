import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type FeedClient } from '../support/client.js';
import { ServiceProcess } from '../support/service.js';
import type { ServicePlan } from './plan.js';

/** What histories run on. */
export interface ServiceUnderTest {
  readonly restarts: number;
  readonly kills: number;
  /** Returns the client of this name, which is connected to a service that runs. */
  client(name: string): Promise<FeedClient>;
  restartAsPlanned(plan: ServicePlan): Promise<void>;
  /** Ends it by SIGTERM. Rejects or returns something else than code 0 if that fails. */
  end(): Promise<{ code: number | null; signal: string | null }>;
}

/** Several replicas of a service. Clients use one after another, and the planned restarts hit one after another. */
export class RestartedReplicas implements ServiceUnderTest {
  private readonly replicas: readonly RestartedService[];
  private turn = 0;

  constructor(count: number, settings: Record<string, string>) {
    this.replicas = Array.from({ length: count }, () => new RestartedService(settings));
  }

  get restarts(): number {
    return this.replicas.reduce((sum, { restarts }) => sum + restarts, 0);
  }

  get kills(): number {
    return this.replicas.reduce((sum, { kills }) => sum + kills, 0);
  }

  client(name: string): Promise<FeedClient> {
    return this.replicas[this.turn++ % this.replicas.length].client(name);
  }

  async restartAsPlanned({ restarts }: ServicePlan): Promise<void> {
    for (const [i, { after, signal }] of restarts.entries()) {
      await sleep(after);
      await this.replicas[i % this.replicas.length].restart(signal);
    }
  }

  async end(): Promise<{ code: number | null; signal: string | null }> {
    const ends = await Promise.all(this.replicas.map((replica) => replica.end()));
    return ends.find(({ code }) => code !== 0) ?? ends[0];
  }
}

/** A service that is restarted and killed while histories run on it. */
export class RestartedService implements ServiceUnderTest {
  restarts = 0;
  /** How many of the restarts were kills. */
  kills = 0;
  private service: Promise<ServiceProcess>;
  private readonly clients = new Map<string, FeedClient>();

  constructor(private readonly settings: Record<string, string>) {
    this.service = ServiceProcess.start(settings);
  }

  /** Waits until the service runs, and returns the client of this name, which is connected to it. */
  async client(name: string): Promise<FeedClient> {
    const { grpcAddress } = await this.service;
    let client = this.clients.get(name);
    if (!client) this.clients.set(name, (client = connect(grpcAddress)));
    return client;
  }

  async restartAsPlanned({ restarts }: ServicePlan): Promise<void> {
    for (const { after, signal } of restarts) {
      await sleep(after);
      await this.restart(signal);
    }
  }

  /** Ends the service by SIGTERM. */
  async end(): Promise<{ code: number | null; signal: string | null }> {
    this.disconnect();
    return (await this.service).kill('SIGTERM');
  }

  async restart(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const before = await this.service;
    const { promise, resolve, reject } = Promise.withResolvers<ServiceProcess>();
    this.service = promise;
    promise.catch(() => {}); // the callers of client() get the error
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
