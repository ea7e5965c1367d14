export { Call, CallAborted } from './call.js';
export { MessageRefused } from './decompress.js';
export { type EndedCall, StreamStrategy, type StreamStrategyOptions } from './stream-strategy.js';
export { StreamedResult } from './streamed-result.js';
