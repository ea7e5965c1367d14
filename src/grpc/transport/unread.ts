import type { ServerHttp2Stream } from 'node:http2';
import type { Connection } from './connection.js';

/** How long (milliseconds) a client may leave what is left of a call unread, while its connection moves. */
export const LINGER = 2_000;
/** A call is looked at so often in that time. */
const LOOKS = 2;
/** Looks (a second apart) at a call whose connection has no window left for any stream, before it counts all the same. */
const MOST_LOOKS = 60;

/** A call of which something is left for its client. */
interface Leftover {
  readonly connection: Connection;
  readonly stream: ServerHttp2Stream;
  /** Writes of its stream that the kernel has taken. */
  readonly writesOut: number;
}

/**
 * Calls back once the client does not read what is left of a call: its stream's window has stayed closed for LINGER
 * while the connection moved. Time alone would not tell such a client from one on a slow link, whose connection is busy
 * with other streams.
 *
 * Each look is a PING, which overtakes the stream's data where that has no window, and nothing else. So when the answer
 * is there, the data has gone out before it, or could not: for want of the stream's own window, if the connection's is
 * open. A connection that is ending can't be asked: there it is time that counts.
 *
 * @returns what stops the looking; it does not call back after that
 */
export function whenUnread(call: Leftover, onUnread: () => void): () => void {
  const { connection, stream } = call;
  let unread = 0;
  let looks = 0;
  let { writesOut } = call;
  let isStopped = false;
  let timer = setTimeout(ask, LINGER / LOOKS);

  function ask(): void {
    connection.onAnswer(look);
  }

  function look(): void {
    if (isStopped) return;
    looks++;
    if (call.writesOut !== writesOut) unread = 0;
    else if (connection.window > 0 || stream.writableFinished || looks > MOST_LOOKS) unread++;
    ({ writesOut } = call);
    if (unread === LOOKS) onUnread();
    else timer = setTimeout(ask, LINGER / LOOKS);
  }

  return () => {
    isStopped = true;
    clearTimeout(timer);
  };
}
