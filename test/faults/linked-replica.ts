import { onTestFinished } from 'vitest';
import { BreakableLink, withoutAnswers } from '../support/breakable-link.js';
import type { NatsServer } from '../support/nats.js';
import { freeAddresses } from '../support/ports.js';
import { ServiceProcess } from '../support/service.js';
import type { Door } from './numbered-topics.js';

/** A replica of Feed in a process of its own, which reaches each NATS server by a link. It ends with the test. */
export class LinkedReplica implements Door {
  /** Whether the next answer to a publish gets lost on its way to the replica. */
  losesAnswer = (): boolean => false;
  /** How many answers got lost. */
  lostAnswers = 0;
  private isKilled = false;
  private service!: ServiceProcess;

  private constructor(
    private readonly settings: Record<string, string>,
    /** One for each server, in their order. */
    readonly links: readonly BreakableLink[],
  ) {}

  static async start(
    servers: readonly NatsServer[],
    settings: Record<string, string>,
  ): Promise<LinkedReplica> {
    const isLost = (): boolean => {
      const isNow = replica.losesAnswer();
      if (isNow) replica.lostAnswers++;
      return isNow;
    };
    const links = await Promise.all(
      servers.map(({ address }) => BreakableLink.to(address, () => withoutAnswers(isLost))),
    );
    onTestFinished(() => links.forEach((link) => link.close()));
    const urls = links.map(({ address }) => `nats://${address}`);
    // While it is killed, its clients try its ports, which no other server may have then.
    const own = { ...(await freeAddresses()), FEED_NATS_SERVERS: urls.join() };
    const replica = new LinkedReplica({ ...settings, ...own }, links);
    replica.service = await ServiceProcess.start(replica.settings);
    return replica;
  }

  get address(): string {
    return this.service.grpcAddress;
  }

  get output(): string {
    return this.service.output.join('');
  }

  signal(signal: NodeJS.Signals): void {
    this.service.process.kill(signal);
  }

  async kill(): Promise<void> {
    if (this.isKilled) return;
    this.isKilled = true;
    await this.service.kill('SIGKILL');
  }

  /** Starts the replica again, unless it runs. */
  async run(): Promise<void> {
    if (!this.isKilled) return;
    this.isKilled = false;
    this.service = await ServiceProcess.start(this.settings);
  }
}
