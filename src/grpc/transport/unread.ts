import type { ServerHttp2Stream } from 'node:http2';
import type { Connection } from './connection.js';

/** A client that takes nothing of a stream for this long (milliseconds), while its connection moves, does not read it. */
export const LINGER = 2_000;
/** The stream is checked so often in that time, and must have made no progress at any check. */
const CHECKS = 2;
/** After this long (milliseconds) without progress, it counts as unread even if its connection did not move. */
const MOST_LINGER = 60_000;

/** A call whose client should take what is left of its stream. */
interface LingeringCall {
  readonly connection: Connection;
  readonly stream: ServerHttp2Stream;
  /** Writes of its stream that the kernel has taken, in all. */
  readonly writesDone: number;
}

/**
 * Calls back once the client does not read what is left of a call's stream. Time alone would not tell such a client from
 * one on a slow link, whose connection is busy with other streams.
 *
 * Each check is a PING, which overtakes the stream's data where that has no window, and nothing else. So when the answer
 * is there, the data was sent before it, or could not be: for want of the stream's own window, if the connection's is
 * open. A connection that is ending can't be asked: there it is time that counts.
 *
 * @returns what stops the checks; it does not call back after that
 */
export function whenUnread(call: LingeringCall, onUnread: () => void): () => void {
  const { connection, stream } = call;
  let unread = 0;
  let { writesDone } = call;
  let isStopped = false;
  const interval = LINGER / CHECKS;
  const ask = (): void => connection.pings.ask(check);
  let timer = setTimeout(ask, interval);
  const latest = setTimeout(giveUp, MOST_LINGER);

  function check(): void {
    if (isStopped) return;
    // Else it is the handler that has not answered yet, such as an upload whose disk is slow.
    const isAnswered = stream.writableLength > 0 || stream.writableEnded;
    if (call.writesDone !== writesDone) {
      unread = 0;
      latest.refresh();
    } else if (isAnswered && (connection.outbound.window > 0 || stream.writableFinished)) {
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
