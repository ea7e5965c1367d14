import type { FactoryProvider, ModuleMetadata } from '@nestjs/common';
import type { ConnectOptions } from '../feed.js';
import type { EndedSubscription } from './subscription.js';

export interface FeedModuleOptions extends ConnectOptions {
  /**
   * `host:port`, `[ipv6]:port` or `dns:///host:port` (each IP address of the name is a server), or several in a list or
   * separated by commas. The default port is 50051.
   */
  readonly address: string | readonly string[];
  /** Milliseconds that running handlers may take to finish when the app shuts down; 10,000 by default. */
  readonly shutdownTimeout?: number;
  /**
   * Called when a handler gets no more events, because its watch failed with an error that another attempt would not mend:
   * a CursorExpiredError, an EpochChangedError, a ForbiddenError or a bad topic, for example. The error was logged. By
   * default the app goes on without the handler.
   */
  readonly onEnd?: (ended: EndedSubscription) => unknown;
}

/** How the module takes part in the app. */
export interface FeedModuleRegistration {
  /** Tells several clients in one app apart: see InjectFeed, and OnFeedEventOptions.client. */
  readonly name?: string;
  /** True, the default, if every module can inject the client; otherwise only modules that import this one can. */
  readonly isGlobal?: boolean;
}

export interface FeedModuleAsyncOptions
  extends FeedModuleRegistration, Pick<ModuleMetadata, 'imports'> {
  /** The providers that `useFactory` gets. */
  readonly inject?: FactoryProvider['inject'];
  // eslint-disable-next-line typescript/no-explicit-any -- the parameters follow from `inject`, as in Nest's own factories
  readonly useFactory: (...args: any[]) => FeedModuleOptions | Promise<FeedModuleOptions>;
}
