import type { ServerHttp2Stream } from 'node:http2';
import type { Connection } from './connection.js';

/** A client that takes nothing of a stream for this long (milliseconds), though its connection has room, does not read it. */
export const LINGER = 2_000;
/** The number of checks in that time. The stream is unread after this many in a row without progress. */
const CHECKS = 2;
/** After this long (milliseconds) without progress the stream is unread, even if its connection had no room. */
const MAX_LINGER = 60_000;

/** A call whose client should read the rest of its stream. */
interface LingeringCall {
  readonly connection: Connection;
  readonly stream: ServerHttp2Stream;
  /** True if its response is a stream. */
  readonly endless: boolean;
  /** How many of its stream's writes the kernel has taken. */
  readonly writesDone: number;
}

/**
 * Calls `onUnread` once the client has stopped reading a call's stream. Time alone can't tell: on a slow link, the stream may
 * wait for other streams of its connection.
 *
 * So each check waits for the answer to a PING. A PING overtakes only data that lacks window. So at the answer, either the
 * data was sent, which is progress, or it lacked window: that of the stream itself, if the connection's is open, which means
 * that the client does not read the stream. A connection that is ending takes no PINGs, and only time counts there.
 *
 * @returns a function that stops the checks, after which onUnread is not called
 */
export function whenUnread(call: LingeringCall, onUnread: () => void): () => void {
  const { connection, stream } = call;
  let unread = 0;
  let { writesDone } = call;
  let isStopped = false;
  const interval = LINGER / CHECKS;
  const ask = (): void => connection.pings.ask(check);
  let timer = setTimeout(ask, interval);
  const latest = setTimeout(giveUp, MAX_LINGER);

  function check(): void {
    if (isStopped) return;
    // False if there is nothing to read, because the handler has not answered yet, such as an upload on a slow disk.
    const hasAnswer = stream.writableLength > 0 || stream.writableEnded;
    // A stream of answers may have one that waits for room on its connection. A single answer waits for its handler.
    const waitsForHandler = !hasAnswer && !call.endless;
    if (call.writesDone !== writesDone || waitsForHandler) {
      unread = 0;
      latest.refresh();
    } else if (hasAnswer && (connection.outbound.window > 0 || stream.writableFinished)) {
      unread++;
    }
    ({ writesDone } = call);
    if (unread === CHECKS) giveUp();
    else timer = setTimeout(ask, interval);
  }

  function giveUp(): void {
    stop();
    onUnread();
  }

  function stop(): void {
    isStopped = true;
    clearTimeout(timer);
    clearTimeout(latest);
  }

  return stop;
}
