export { Feed } from '../feed.js';
export { FeedModule } from './feed.module.js';
export type {
  FeedModuleAsyncOptions,
  FeedModuleOptions,
  FeedModuleRegistration,
} from './feed-module-options.js';
export { getFeedToken, InjectFeed } from './inject-feed.js';
export {
  type CheckpointFactory,
  type FeedEventContext,
  type FeedEventHandler,
  OnFeedEvent,
  type OnFeedEventOptions,
} from './on-feed-event.js';
export type { EndedSubscription } from './subscription.js';
