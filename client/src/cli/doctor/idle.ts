import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { FeedError } from '../../errors.js';
import { Event, StartPosition, WatchRequest } from '../../gen/feed/v1/feed.js';
import { Call } from '../../grpc/call.js';
import { Connection } from '../../grpc/connection.js';
import { frame } from '../../grpc/frames.js';
import { headersOf } from '../../open-call.js';
import type { Examined } from './examined.js';
import { type Finding, failed, ok } from './finding.js';
import { idleAdvice } from './idle-advice.js';
import { type IdleContext, type IdleWatch, isSilent, type Outcome } from './idle-watch.js';
import { uploadOne } from './service.js';
import { within } from './within.js';

/** The client's own interval of heartbeats, in seconds. */
const HEARTBEAT_SECONDS = 10;
/** The server takes no shorter one. */
const SHORTEST_HEARTBEAT_SECONDS = 1;
/** A watch with heartbeats is dead after this many intervals without one, as it is for the client. */
const SILENT_HEARTBEATS = 2.5;

/** Returns the interval of heartbeats, in seconds, for an idle time of so many seconds. */
function heartbeatFor(seconds: number): number {
  return Math.max(SHORTEST_HEARTBEAT_SECONDS, Math.min(HEARTBEAT_SECONDS, Math.floor(seconds / 3)));
}

/**
 * Opens two watches at once, one of them with heartbeats, and looks after so many seconds of silence whether they live: an
 * event that is stored then has to arrive. Their connections have PINGs as those of the client have.
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
    const [plain, beating] = watches.map((watch) => ({ ...watch, isTried }));
    const context = { seconds, heartbeat };
    return [
      describe(plain, { ...context, other: beating, isBeating: false }),
      describe(beating, { ...context, other: plain, isBeating: true }),
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
  const request = WatchRequest.encode({
    topic,
    position: StartPosition.START_POSITION_LIVE,
    heartbeat: heartbeat === undefined ? undefined : { seconds: heartbeat, nanos: 0 },
  });
  await within(call.write(frame(request.finish())), signal);
  call.end();
  await within(call.headers(), signal);
  if (heartbeat !== undefined) call.endAfterSilence(heartbeat * SILENT_HEARTBEATS * 1_000);
  const watch: IdleWatch = { connection, call, heartbeats: 0, ids: new Set() };
  void follow(watch, performance.now());
  return watch;
}

/** Notes what comes, and the end. Never rejects. */
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

/** An event may take this many milliseconds to a watch that was idle. */
const ARRIVES_WITHIN = 5_000;

/**
 * Stores an event, and waits until each watch has it or has ended. Returns false if no event could be stored, so that nobody
 * knows whether a watch that has not ended is alive.
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
  const { seconds, heartbeat, isBeating } = context;
  const how = isBeating ? ` (one heartbeat every ${heartbeat} s, ${heartbeats} came)` : '';
  const figures = { idleSeconds: seconds, ...(isBeating && { heartbeats }) };
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
