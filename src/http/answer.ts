import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';

/**
 * An answer that comes before the end of the body goes out at once. The connection closes when the rest of the body has come, or after so
 * long (milliseconds): if it closed while bytes of the client are unread, the kernel would reset it, and the client might lose the answer.
 */
const EARLY_ANSWER_LINGER = 1_000;

/** Answers with a text of JSON, unless something was answered before. */
export function answer(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  text: string,
  headers: OutgoingHttpHeaders = {},
): void {
  if (response.headersSent || response.destroyed) return;
  const isEarly = !request.complete;
  response.writeHead(status, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    'content-length': Buffer.byteLength(text),
    ...headers,
    ...(isEarly && { connection: 'close' }),
  });
  if (!isEarly) {
    response.end(text);
    return;
  }
  response.write(text);
  const end = (): void => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(end, EARLY_ANSWER_LINGER);
  request.once('end', end).resume();
}
