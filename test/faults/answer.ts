import { constants, type OutgoingHttpHeaders } from 'node:http2';
import { Metadata, status } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { errorInfo } from '../support/client.js';
import { type RawCall, RawClient } from '../support/raw-client.js';
import { within } from '../support/wait.js';
import { bytesField } from '../wire/events.js';

export type Method = 'Watch' | 'UploadEvents' | 'Chat';
/** A value for each method. */
export type Each<T> = Readonly<Record<Method, T>>;

/** The smallest valid message of each method. */
export const GOOD: Each<Buffer> = {
  Watch: bytesField(1, 't'),
  UploadEvents: bytesField(2, 't'),
  Chat: bytesField(2, 'hello'),
};

export const SERVED: Each<string> = { Watch: 'served', UploadEvents: 'OK', Chat: 'OK' };

export const all = (answer: string): Each<string> => ({
  Watch: answer,
  UploadEvents: answer,
  Chat: answer,
});

/** The answers with which uploads and chats refuse an invalid first message. */
export const STREAMS_REFUSE = {
  UploadEvents: 'INVALID_ARGUMENT EVENT_INVALID index=0 received=0',
  Chat: 'INVALID_ARGUMENT MESSAGE_INVALID',
};
export const REFUSED: Each<string> = {
  Watch: 'INVALID_ARGUMENT REQUEST_INVALID',
  ...STREAMS_REFUSE,
};

/** Frames a message with a flag. The flag 1 says that the message is compressed. */
export function flagged(message: Uint8Array, flag = 1): Buffer {
  const framed = frame(message);
  framed[0] = flag;
  return framed;
}

/** Connects a client, which is closed after the test. */
export async function rawClient(address: string): Promise<RawClient> {
  const raw = await RawClient.connect(address);
  onTestFinished(() => raw.close());
  return raw;
}

/** Sends bytes as the whole request of a call of each method, and returns the answers. */
export async function askAll(
  raw: RawClient,
  bytes: (method: Method) => Uint8Array,
  headers: OutgoingHttpHeaders = {},
): Promise<Each<string>> {
  const answers = { ...GOOD } as Record<Method, unknown>;
  for (const method of ['Watch', 'UploadEvents', 'Chat'] as const)
    answers[method] = await ask(raw, method, bytes(method), headers);
  return answers as Each<string>;
}

export function ask(
  raw: RawClient,
  method: string,
  bytes: Uint8Array,
  headers: OutgoingHttpHeaders = {},
): Promise<string> {
  const call = raw.open(method, headers);
  call.stream.end(bytes);
  return answerOf(call);
}

/**
 * Returns the answer to a call as a line: its gRPC status and ErrorInfo; or its HTTP status, where there is no gRPC status;
 * or "reset" and the code; or "served" for a watch that began. The call is cancelled then.
 */
export async function answerOf(call: RawCall): Promise<string> {
  call.drop();
  try {
    return await within(answered(call), 'an answer');
  } finally {
    call.stream.close(constants.NGHTTP2_CANCEL);
  }
}

async function answered(call: RawCall): Promise<string> {
  const headers = await Promise.race([call.headers, call.closed.then(() => undefined)]);
  if (!headers) return `reset ${call.stream.rstCode}`;
  if (Number(headers[':status']) !== 200) return `HTTP ${String(headers[':status'])}`;
  if ('feed-head' in headers) return 'served';
  const trailers = await call.trailers;
  if (!trailers) return `reset ${call.stream.rstCode}`;
  const code = status[Number(trailers['grpc-status'])];
  const info = errorInfo(Metadata.fromHttp2Headers(trailers));
  if (!info) return code;
  const metadata = Object.entries(info.metadata).map(([name, value]) => ` ${name}=${value}`);
  return `${code} ${info.reason}${metadata.toSorted().join('')}`;
}
