export { Call, CallAborted } from './call.js';
export { type ConnectionLimit } from './connection-limit.js';
export { type Keepalive } from './connection.js';
export { type EndedCall } from './answer.js';
export { HeldRequest } from './held-request.js';
export type { Retirement } from './retirement.js';
export type { ServerTls } from './server-tls.js';
export {
  type ConnectionAge,
  StreamStrategy,
  type StreamStrategyOptions,
} from './stream-strategy.js';
export { streamed, type Streamed } from './streamed.js';
