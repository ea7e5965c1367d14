import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { FeedError } from '../../errors.js';
import { Event, StartPosition } from '../../gen/feed/v1/feed.js';
import { Call } from '../../grpc/call.js';
import { Connection } from '../../grpc/connection.js';
import { frame } from '../../grpc/frames.js';
import { watchRequest } from '../../watch-request.js';
import { headersOf } from '../../open-call.js';
import { MISSED_HEARTBEATS } from '../../watch.js';
import type { Examined } from './examined.js';
import { type Finding, failed, ok } from './finding.js';
import { idleAdvice } from './idle-advice.js';
import { type IdleContext, type IdleWatch, isSilent, type Outcome } from './idle-watch.js';
import { uploadOne } from './service.js';
import { within } from './within.js';

/** The interval of heartbeats that the client asks for by default, in seconds. */
const HEARTBEAT_SECONDS = 10;
/** The server refuses shorter intervals. */
const SHORTEST_HEARTBEAT_SECONDS = 1;

/** Returns the interval of heartbeats, in seconds: short enough for three of them in an idle time of `seconds`. */
function heartbeatFor(seconds: number): number {
  return Math.max(SHORTEST_HEARTBEAT_SECONDS, Math.min(HEARTBEAT_SECONDS, Math.floor(seconds / 3)));
}

/**
 * Opens two watches at once, one of them with heartbeats, and looks after `seconds` of silence whether they live: an event
 * that is stored then has to arrive. Each has a connection of its own, with the PINGs of the client's connections.
 */
export async function checkIdle(
  examined: Examined,
  seconds: number,
): Promise<readonly [withoutHeartbeat: Finding, withHeartbeat: Finding]> {
  const { signal } = examined;
  const heartbeat = heartbeatFor(seconds);
  const connections: Connection[] = [];
  try {
    const watches = [
      await openWatch(examined, connections, undefined),
      await openWatch(examined, connections, heartbeat),
    ] as const;
    await waitUntilOver(watches, seconds, signal);
    const isTried = await tryWithEvent(examined, connections, watches);
    const [plain, withHeartbeats] = watches.map((watch) => ({ ...watch, isTried }));
    const context = { seconds, heartbeat };
    return [
      describe(plain, { ...context, other: withHeartbeats, hasHeartbeats: false }),
      describe(withHeartbeats, { ...context, other: plain, hasHeartbeats: true }),
    ];
  } finally {
    for (const connection of connections) connection.close();
  }
}

async function openWatch(
  examined: Examined,
  connections: Connection[],
  heartbeat: number | undefined,
): Promise<IdleWatch> {
  const { signal, topic } = examined;
  const path = '/feed.v1.FeedService/Watch';
  const { connection, call } = await openCall(examined, connections, path);
  const request = watchRequest({
    topic,
    position: StartPosition.START_POSITION_LIVE,
    heartbeat: heartbeat === undefined ? undefined : { seconds: heartbeat, nanos: 0 },
  });
  await within(call.write(frame(request)), signal);
  call.end();
  await within(call.headers(), signal);
  if (heartbeat !== undefined) call.endAfterSilence(heartbeat * MISSED_HEARTBEATS * 1_000);
  const watch: IdleWatch = { connection, call, heartbeats: 0, ids: new Set() };
  void follow(watch, performance.now());
  return watch;
}

/** Notes the heartbeats and events that come to the watch, and its end. Never rejects. */
async function follow(watch: IdleWatch, start: number): Promise<void> {
  let error: unknown;
  try {
    for (;;) {
      const messages = await watch.call.read();
      if (!messages) break;
      for (const message of messages) {
        const { id } = Event.decode(message);
        if (id === '') watch.heartbeats++;
        else watch.ids.add(id);
      }
    }
  } catch (failure) {
    error = failure;
  }
  watch.ended = {
    seconds: Math.round((performance.now() - start) / 100) / 10,
    error: error instanceof FeedError ? error : new FeedError('UNAVAILABLE', 'the server ended it'),
    isConnectionLost: watch.connection.failure !== undefined,
  };
}

/** Waits for `seconds`, or until both watches have ended. */
async function waitUntilOver(
  watches: readonly IdleWatch[],
  seconds: number,
  signal: AbortSignal,
): Promise<void> {
  const end = performance.now() + seconds * 1_000;
  while (performance.now() < end && watches.some(({ ended }) => !ended)) {
    await sleep(Math.min(100, Math.max(1, end - performance.now())), undefined, { signal });
  }
}

/** An event that is stored after the silence has this many milliseconds to reach the watches. */
const ARRIVES_WITHIN = 5_000;

/**
 * Stores an event, and waits until each watch has it or has ended. Returns false if no event could be stored: then it is
 * unknown whether a watch that has not ended is alive.
 */
async function tryWithEvent(
  examined: Examined,
  connections: Connection[],
  watches: readonly IdleWatch[],
): Promise<boolean> {
  const { signal } = examined;
  const id = randomUUID();
  const isOver = ({ ended, ids }: IdleWatch): boolean => ended !== undefined || ids.has(id);
  if (examined.mayUpload !== true || watches.every(({ ended }) => ended)) return false;
  try {
    // The connection of the earlier checks was idle for as long, and may be gone.
    await uploadOne(examined, id, async (_, path) => {
      const { call } = await openCall(examined, connections, path);
      return { call, responseHeaders: () => undefined };
    });
  } catch (error) {
    if (signal.aborted) throw error;
    return false;
  }
  const end = performance.now() + ARRIVES_WITHIN;
  while (performance.now() < end && !watches.every(isOver)) await sleep(10, undefined, { signal });
  return true;
}

/** Starts a call on a connection of its own, which it adds to `connections` for the caller to close. */
async function openCall(
  { endpoint, options, metadata, signal }: Examined,
  connections: Connection[],
  path: string,
): Promise<{ readonly connection: Connection; readonly call: Call }> {
  const opening = Connection.open(endpoint, options);
  const connection = await within(opening, signal, options.connectTimeout);
  connections.push(connection);
  const call = new Call(connection.request(path, await headersOf(metadata)), connection, () => {});
  return { connection, call };
}

function describe(watch: Outcome, context: IdleContext): Finding {
  const { ended, isTried, heartbeats } = watch;
  const { seconds, heartbeat, hasHeartbeats } = context;
  const how = hasHeartbeats ? ` (one heartbeat every ${heartbeat} s, ${heartbeats} came)` : '';
  const figures = { idleSeconds: seconds, ...(hasHeartbeats && { heartbeats }) };
  if (ended) {
    const detail = `ended after ${ended.seconds} s${how}: ${ended.error.message}`;
    const advice = idleAdvice(watch, context);
    return failed(detail, advice, { ...figures, endedAfterSeconds: ended.seconds });
  }
  if (isSilent(watch))
    return failed(
      `looked alive after ${seconds} s${how}, and did not get an event that was stored then`,
      idleAdvice(watch, context),
      figures,
    );
  const proof = isTried ? 'got an event' : 'had not ended';
  return ok(`${proof} after ${seconds} s of silence${how}`, figures);
}
