export { Call, CallAborted } from './call.js';
export { type Keepalive } from './connection.js';
export { MessageRefused } from './decompress.js';
export { type EndedCall } from './answer.js';
export { statusOf } from './status.js';
export { StreamStrategy, type StreamStrategyOptions } from './stream-strategy.js';
export { streamed, type Streamed } from './streamed.js';
