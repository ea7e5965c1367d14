import type { FactoryProvider, InjectionToken } from '@nestjs/common';
import type { RetryOptions } from '../backoff.js';
import type { Checkpoint } from '../checkpoint.js';
import type { Event } from '../gen/feed/v1/feed.js';
import type { Topics } from '../topics.js';
import type { WatchOptions } from '../watch.js';

/** The second argument of a handler, after the event. */
export interface FeedEventContext {
  /** The event's cursor. Keep it in the transaction of the handler's own work to handle each event exactly once. */
  readonly cursor: string;
  /** How often the handler got this event since the app started: 1 at first. */
  readonly attempt: number;
  /** Fires at a shutdown, when the module's `shutdownTimeout` has passed: the app does not wait for the handler any longer. */
  readonly signal: AbortSignal;
}

/** A method that handles events. An event counts as handled once the promise that the method returns has resolved. */
export type FeedEventHandler = (event: Event, context: FeedEventContext) => unknown;

/** Makes a checkpoint when the app starts, from providers of the app. */
export type CheckpointFactory = Pick<FactoryProvider<Checkpoint>, 'inject' | 'useFactory'>;

export interface OnFeedEventOptions extends Pick<
  WatchOptions,
  'from' | 'checkpointEvery' | 'expired' | 'heartbeat'
> {
  /** The `name` of the FeedModule whose client is to be used, if it was imported with one. */
  readonly client?: string;
  /**
   * Keeps the handler's cursor across restarts of the app: a checkpoint, the token of a provider that is one, or a factory
   * `{ inject, useFactory }`. Each handler needs a checkpoint of its own. Without one, a handler begins at `from` after
   * each start.
   */
  readonly checkpoint?: Checkpoint | InjectionToken<Checkpoint> | CheckpointFactory;
  /**
   * The treatment of an event whose handler throws: `retry` (the default) hands it to the handler again until that
   * succeeds, and the events after it wait; `skip` logs the error and counts the event as handled.
   */
  readonly onError?: 'retry' | 'skip';
  /** The waits between attempts to handle an event. */
  readonly retry?: RetryOptions;
}

/** The arguments of one use of the decorator. */
interface HandlerMetadata {
  readonly topics: Topics;
  readonly options: OnFeedEventOptions;
}

const METADATA_KEY = '@feed-events/client:OnFeedEvent';

/**
 * Makes a method of a provider or controller the handler of the events of a topic, of a pattern of topics, or of several, as in
 * Feed.watch(). From the start of the app to its shutdown,
 * the method gets each event in order, and the next one once the promise that it returned has resolved. Its class must
 * have the default scope, and Nest's guards, pipes, interceptors and filters do not apply. A method may have several decorators,
 * each of which makes a watch of its own. Each replica of the app gets every event.
 */
export function OnFeedEvent(topics: Topics, options: OnFeedEventOptions = {}) {
  return <T extends FeedEventHandler>(
    _target: object,
    _method: string | symbol,
    { value }: TypedPropertyDescriptor<T>,
  ): void => {
    const others = handlersOf(value!);
    Reflect.defineMetadata(METADATA_KEY, [...others, { topics, options }], value!);
  };
}

/** Returns the arguments of all decorators of a method. */
export function handlersOf(method: object): readonly HandlerMetadata[] {
  return (Reflect.getMetadata(METADATA_KEY, method) as HandlerMetadata[] | undefined) ?? [];
}
