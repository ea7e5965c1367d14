export { connect, type ConnectOptions, Feed } from './feed.js';
export type { Admin, AdminOptions } from './admin.js';
export type { NewEvent, Source } from './backlog.js';
export type { RetryOptions } from './backoff.js';
export type { Chat, ChatOptions, ChatState } from './chat.js';
export {
  type Checkpoint,
  type CheckpointInterval,
  fileCheckpoint,
  type Saved,
} from './checkpoint.js';
export {
  CursorExpiredError,
  EpochChangedError,
  FeedError,
  ForbiddenError,
  isRetryable,
  type Status,
  UploadError,
} from './errors.js';
export type { TlsOptions } from './grpc/tls.js';
export type { LogEntry } from './log.js';
export type { CallMetadata } from './open-call.js';
export type { Token } from './token.js';
export type { Topics } from './topics.js';
export { handleInTrace } from './trace.js';
export type { UploadOptions, UploadProgress, UploadSummary } from './upload.js';
export type { From, Watch, WatchOptions, WatchState } from './watch.js';
export type { BackupPart, OpenStream, StoredEvent, Topic } from './gen/feed/v1/admin.js';
export { type ChatMessage, Durability, Event } from './gen/feed/v1/feed.js';
