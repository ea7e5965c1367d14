import {
  type DynamicModule,
  type FactoryProvider,
  Module,
  type ModuleMetadata,
  type OnApplicationShutdown,
  type Provider,
} from '@nestjs/common';
import { DiscoveryModule, DiscoveryService, MetadataScanner, ModuleRef } from '@nestjs/core';
import { connect, type Feed } from '../feed.js';
import { FeedHandlers } from './feed-handlers.js';
import type {
  FeedModuleAsyncOptions,
  FeedModuleOptions,
  FeedModuleRegistration,
} from './feed-module-options.js';
import { getFeedToken } from './inject-feed.js';

/**
 * A client of a Feed service as a provider, and the handlers of its events (OnFeedEvent).
 *
 * Import it last in the root module: at a shutdown, Nest then lets the handlers finish before it calls the onModuleDestroy
 * of the modules that the handlers need. The client is closed at the very end, in onApplicationShutdown.
 */
@Module({})
export class FeedModule {
  /**
   * Connects with these options.
   *
   * @throws TypeError, when the app starts, for an address that is none
   */
  static forRoot({
    name,
    isGlobal,
    ...options
  }: FeedModuleOptions & FeedModuleRegistration): DynamicModule {
    return feedModule({ name, isGlobal }, { useValue: options });
  }

  /** Connects with the options that `useFactory` returns, from the providers of `imports` that are named in `inject`. */
  static forRootAsync({
    inject = [],
    useFactory,
    imports,
    ...registration
  }: FeedModuleAsyncOptions): DynamicModule {
    return feedModule(registration, { inject, useFactory }, imports);
  }
}

/** Holds the client, and may be global. FeedModule, which has the handlers, is not: Nest destroys global modules last. */
@Module({})
class FeedClientModule {}

function feedModule(
  { name, isGlobal = true }: FeedModuleRegistration,
  options: { readonly useValue: FeedModuleOptions } | Omit<FactoryProvider, 'provide'>,
  imports: ModuleMetadata['imports'] = [],
): DynamicModule {
  const optionsToken = `FeedModuleOptions:${name ?? ''}`;
  const feedToken = getFeedToken(name);
  const client: DynamicModule = {
    module: FeedClientModule,
    global: isGlobal,
    imports,
    providers: [
      { provide: optionsToken, ...options } as Provider,
      {
        provide: feedToken,
        inject: [optionsToken],
        useFactory: ({ address, ...rest }: FeedModuleOptions) => connect(address, rest),
      },
      {
        provide: `FeedClosing:${name ?? ''}`,
        inject: [feedToken],
        useFactory: (feed: Feed): OnApplicationShutdown => ({
          onApplicationShutdown: () => feed.close(),
        }),
      },
    ],
    exports: [feedToken, optionsToken],
  };
  return {
    module: FeedModule,
    imports: [DiscoveryModule, client],
    providers: [
      {
        provide: FeedHandlers,
        inject: [feedToken, optionsToken, DiscoveryService, MetadataScanner, ModuleRef],
        useFactory: (
          feed: Feed,
          moduleOptions: FeedModuleOptions,
          discovery: DiscoveryService,
          scanner: MetadataScanner,
          moduleRef: ModuleRef,
        ) => new FeedHandlers(name, feed, moduleOptions, discovery, scanner, moduleRef),
      },
    ],
    exports: [client],
  };
}
