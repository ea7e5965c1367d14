import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { FeedError } from '../feed/errors.js';
import type { HttpCalls } from './http-calls.js';

/** The statuses that node answers with by itself, by the code of its error; 400 for any other of its parser. */
const STATUSES: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** The client has closed its side amid a body. Mostly it is gone. */
const CUT_SHORT = 'HPE_INVALID_EOF_STATE';

/**
 * Ends calls whose bodies turn out to be no HTTP, such as by a chunk without its length, as other bad requests end: with a problem, which
 * of an upload says how many events are stored. By itself, node answers with a status alone, also where the events before are stored.
 * If another request on the connection still waits for its answer, that answer is sent and no 400: the client would take the 400 for it.
 */
export function answerBrokenRequests(server: Server, calls: HttpCalls): void {
  /** The answers that each connection waits for, or that are on their way. */
  const answers = new WeakMap<object, Set<ServerResponse>>();
  server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    const open = answers.get(socket) ?? new Set();
    answers.set(socket, open.add(response));
    response.once('close', () => open.delete(response));
  });
  server.on('clientError', (error: NodeJS.ErrnoException, connection) => {
    const socket = connection as Socket;
    const { code = '' } = error;
    // Node also emits errors of the socket here.
    if (error.syscall !== undefined) {
      socket.destroy();
      return;
    }
    const open = [...(answers.get(socket) ?? [])];
    const broken = code === CUT_SHORT ? undefined : open.find(({ req }) => !req.complete);
    if (broken && (broken === open[0] || open[0].headersSent)) {
      // An answer that comes before the end of a body closes the connection by itself (answer.ts).
      if (broken.headersSent || calls.abort(broken.req, notHttp(error))) return;
    } else if (code !== CUT_SHORT && open.length > 0 && !open[0].headersSent) {
      const last = open[open.length - 1];
      if (!last.headersSent) last.setHeader('connection', 'close');
      return;
    }
    const isRequest = code.startsWith('HPE_') || code in STATUSES;
    if (isRequest && socket.writable && !open.some(({ headersSent }) => headersSent)) {
      const status = STATUSES[code] ?? 400;
      socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n\r\n`);
      socket.destroySoon();
    } else {
      socket.destroy();
    }
  });
}

function notHttp({ message }: Error): FeedError {
  return new FeedError('REQUEST_INVALID', `the body is no HTTP: ${message}`);
}
