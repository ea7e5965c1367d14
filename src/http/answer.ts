import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';

/**
 * An answer that comes before the end of the body goes out at once. The connection closes when the rest of the body has come, or no more of it
 * comes between two looks, which are so long apart (milliseconds): if it closed while bytes of the client are unread, the kernel would reset
 * it, and a client that sends all of its body before it reads would lose the answer.
 */
const LOOK_INTERVAL = 2_000;
/** Nor does the connection stay for longer than so many looks: a body may have no end. */
const MOST_LOOKS = 15;

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
  const { socket } = request;
  let looks = 0;
  let received = socket.bytesRead;
  const end = (): void => {
    clearInterval(timer);
    response.end();
  };
  const timer = setInterval(() => {
    if (socket.bytesRead === received || ++looks === MOST_LOOKS) end();
    received = socket.bytesRead;
  }, LOOK_INTERVAL);
  response.once('close', () => clearInterval(timer));
  request.once('end', end).resume();
}
