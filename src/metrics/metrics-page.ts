import type { Registry } from 'prom-client';
import type { WatchLag } from '../feed/watch-lag.js';
import type { EventRepository } from '../repository/event-repository.js';
import type { Definition, Readings } from './definition.js';
import { registryOf } from './registry.js';

/** Makes the page that Prometheus reads. Requests that come while one is being made get the same. */
export class MetricsPage {
  private readonly registry: Registry;
  private readings!: Readings;
  private making: Promise<string> | undefined;

  constructor(
    definitions: readonly Definition[],
    private readonly repository: EventRepository,
    private readonly lag: WatchLag,
  ) {
    this.registry = registryOf(definitions, () => this.readings);
  }

  /** The media type of the page. */
  get contentType(): string {
    return this.registry.contentType;
  }

  /** Returns the page, within a little more than a second: figures that a disk or NATS does not give in time are missing. */
  text(): Promise<string> {
    this.making ??= this.make().finally(() => (this.making = undefined));
    return this.making;
  }

  private async make(): Promise<string> {
    const [log, lag] = await Promise.all([this.repository.status(), this.lag.measure()]);
    this.readings = { log, lag };
    return this.registry.metrics();
  }
}
