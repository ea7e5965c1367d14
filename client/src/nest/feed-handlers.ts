import type { OnApplicationBootstrap, OnModuleDestroy } from '@nestjs/common';
import type { DiscoveryService, MetadataScanner, ModuleRef } from '@nestjs/core';
import type { Checkpoint } from '../checkpoint.js';
import type { Feed } from '../feed.js';
import type { FeedModuleOptions } from './feed-module-options.js';
import { getFeedToken } from './inject-feed.js';
import { type FeedEventHandler, handlersOf, type OnFeedEventOptions } from './on-feed-event.js';
import { type Handler, Subscription } from './subscription.js';

/** Finds the handlers of one client, and follows their topics from the start of the app to its shutdown. */
export class FeedHandlers implements OnApplicationBootstrap, OnModuleDestroy {
  private subscriptions: readonly Subscription[] = [];

  constructor(
    private readonly clientName: string | undefined,
    private readonly feed: Feed,
    private readonly options: FeedModuleOptions,
    private readonly discovery: DiscoveryService,
    private readonly scanner: MetadataScanner,
    private readonly moduleRef: ModuleRef,
  ) {}

  /** @throws Error for a handler that can't work, before any of them gets an event */
  async onApplicationBootstrap(): Promise<void> {
    const subscriptions: Subscription[] = [];
    for await (const handler of this.handlers()) {
      subscriptions.push(
        new Subscription(this.feed, handler, (ended) => this.options.onEnd?.(ended)),
      );
    }
    for (const subscription of subscriptions) subscription.start();
    this.subscriptions = subscriptions;
  }

  async onModuleDestroy(): Promise<void> {
    const { shutdownTimeout = 10_000 } = this.options;
    await Promise.all(this.subscriptions.map((one) => one.stop(shutdownTimeout)));
  }

  /** Yields the handlers of this client, from all providers and controllers of the app. */
  private async *handlers(): AsyncGenerator<Handler> {
    const seen = new Set<unknown>();
    const wrappers = [...this.discovery.getProviders(), ...this.discovery.getControllers()];
    for (const wrapper of wrappers) {
      const instance: unknown = wrapper.instance;
      // A provider with `useExisting` has the same instance as another provider.
      if (typeof instance !== 'object' || instance === null || seen.has(instance)) continue;
      seen.add(instance);
      this.checkIsOnlyOne(instance);
      const methods = instance as Readonly<Record<string, FeedEventHandler>>;
      const prototype = Object.getPrototypeOf(instance) as typeof methods;
      for (const method of this.scanner.getAllMethodNames(prototype)) {
        for (const { topics, options } of handlersOf(prototype[method])) {
          const name = `${instance.constructor.name}.${method}`;
          if (wrapper.isTransient || !wrapper.isDependencyTreeStatic())
            throw new Error(`${name}: @OnFeedEvent needs a provider of the default scope`);
          this.checkClient(name, options.client);
          if (options.client !== this.clientName) continue;
          const checkpoint = await this.checkpointOf(name, options);
          const handle: FeedEventHandler = (...args) => methods[method](...args);
          yield { name, topics, options, checkpoint, handle };
        }
      }
    }
  }

  /** With two modules of the same name, each event would be handled twice. */
  private checkIsOnlyOne(instance: object): void {
    if (!(instance instanceof FeedHandlers) || instance === this) return;
    if (instance.clientName !== this.clientName) return;
    const which = this.clientName === undefined ? 'without a name' : `named ${this.clientName}`;
    throw new Error(
      `FeedModule ${which} is imported twice: import it in the root module only, or give each a name`,
    );
  }

  /** @throws Error if no client has this name */
  private checkClient(handler: string, name: string | undefined): void {
    try {
      this.moduleRef.get(getFeedToken(name), { strict: false });
    } catch (cause) {
      const which = name === undefined ? 'without a name' : `named ${name}`;
      throw new Error(`${handler}: no FeedModule ${which} is imported`, { cause });
    }
  }

  private async checkpointOf(
    handler: string,
    { checkpoint }: OnFeedEventOptions,
  ): Promise<Checkpoint | undefined> {
    if (checkpoint === undefined) return undefined;
    if (typeof checkpoint === 'object' && 'load' in checkpoint) return checkpoint;
    try {
      const provider = (token: unknown): unknown =>
        this.moduleRef.get(token as string, { strict: false });
      if (typeof checkpoint !== 'object' || !('useFactory' in checkpoint))
        return provider(checkpoint) as Checkpoint;
      return await checkpoint.useFactory(...(checkpoint.inject ?? []).map(provider));
    } catch (cause) {
      throw new Error(`${handler}: its checkpoint can't be made`, { cause });
    }
  }
}
