import { randomUUID } from 'node:crypto';
import { FeedError } from '../../errors.js';
import { Durability, Event, StartPosition, UploadResult } from '../../gen/feed/v1/feed.js';
import { frame } from '../../grpc/frames.js';
import { watchRequest } from '../../watch-request.js';
import { callFailed } from './call-advice.js';
import type { Examined, ProbeCall } from './examined.js';
import { type Finding, failed, ok, skipped, warning } from './finding.js';
import { startCall } from './probe-call.js';
import { millisecondsSince, TooLate, within } from './within.js';

/** grpc.health.v1.HealthCheckResponse.ServingStatus, by number. */
const SERVING_STATUSES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];
/** The first byte of a HealthCheckResponse: the key of its only field, `status = 1`. The second one is the status. */
const STATUS_KEY = 0x08;

/** Asks grpc.health.v1.Health whether the server serves. The empty request asks about the server as a whole. */
export async function checkHealth(examined: Examined): Promise<Finding> {
  const { signal } = examined;
  const start = performance.now();
  let probe: ProbeCall | undefined;
  try {
    probe = await startCall(examined, '/grpc.health.v1.Health/Check');
    await within(probe.call.write(frame(new Uint8Array())), signal);
    probe.call.end();
    const [message] = (await within(probe.call.read(), signal)) ?? [];
    const status = SERVING_STATUSES[message?.[0] === STATUS_KEY ? message[1] : 0] ?? 'UNKNOWN';
    const milliseconds = millisecondsSince(start);
    if (status === 'SERVING') return ok(`SERVING (${milliseconds} ms)`, { status, milliseconds });
    return failed(status, [
      'The server is starting or shutting down: its log says which. During a drain (FEED_DRAIN_DELAY, FEED_DRAIN_TIMEOUT) it takes no new clients: connect to its successor.',
    ]);
  } catch (error) {
    if (signal.aborted) throw error;
    return callFailed(error, probe?.responseHeaders());
  } finally {
    probe?.call.cancel();
  }
}

/** Opens a live watch, which the checks after this one use. */
export async function checkAuthorization(examined: Examined): Promise<Finding> {
  const { metadata, signal, topic } = examined;
  let probe: ProbeCall | undefined;
  const start = performance.now();
  try {
    probe = await startCall(examined, '/feed.v1.FeedService/Watch');
    await within(probe.call.write(frame(liveRequest(topic))), signal);
    probe.call.end();
    const headers = await within(probe.call.headers(), signal);
    if (headers['feed-head'] === undefined)
      return failed(`may watch ${topic}, but the answer has no header feed-head`, [
        'A proxy drops response headers, and a watch needs them to resume: let it pass feed-head and feed-earliest.',
      ]);
    examined.watch = probe;
    const how = metadata.token === undefined ? 'without a token' : 'with the token';
    return ok(`may watch ${topic} ${how} (${millisecondsSince(start)} ms)`, {
      milliseconds: millisecondsSince(start),
      topic,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    return callFailed(error, probe?.responseHeaders());
  } finally {
    if (!examined.watch) probe?.call.cancel();
  }
}

const liveRequest = (topic: string): Uint8Array =>
  watchRequest({ topic, position: StartPosition.START_POSITION_LIVE });

/** The number of events that are uploaded and timed. */
const EVENTS = 5;

/** Uploads events one after another, and times their acknowledgements and their deliveries to the watch. */
export async function checkDelivery(examined: Examined): Promise<Finding> {
  const { signal, topic } = examined;
  const acknowledged: number[] = [];
  const delivered: number[] = [];
  let result: UploadResult | undefined;
  try {
    for (let i = 0; i < EVENTS; i++) {
      const id = randomUUID();
      const start = performance.now();
      const arrival = within(arrivalOf(examined.watch!, id), signal).then(() =>
        delivered.push(millisecondsSince(start)),
      );
      arrival.catch(() => {}); // It is awaited below, unless the upload fails first.
      result = await uploadOne(examined, id);
      acknowledged.push(millisecondsSince(start));
      await arrival.catch((error: unknown) => {
        if (signal.aborted) throw error;
        throw new Undelivered(error);
      });
    }
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof Undelivered) return undeliveredFinding(error);
    const finding = error instanceof UploadFailed ? error.finding : callFailed(error, undefined);
    const { mayUpload } = examined;
    return mayUpload === false
      ? skipped(`may not upload to ${topic} (${finding.detail})`)
      : finding;
  }
  examined.mayUpload = true;
  const [ack, delivery] = [median(acknowledged), median(delivered)];
  const durability = Durability[result!.durability]?.replace('DURABILITY_', '').toLowerCase();
  return ok(
    `acknowledged after ${ack} ms (${durability}), delivered after ${delivery} ms, median of ${EVENTS} events in ${topic}`,
    { acknowledgedMilliseconds: ack, deliveredMilliseconds: delivery, durability, topic },
  );
}

/** The upload's call failed. */
class UploadFailed extends Error {
  constructor(readonly finding: Finding) {
    super(finding.detail);
  }
}

/** The event is stored, and the watch did not get it. */
class Undelivered extends Error {
  constructor(override readonly cause: unknown) {
    super('not delivered', { cause });
  }
}

function undeliveredFinding({ cause }: Undelivered): Finding {
  const { detail, advice } = callFailed(cause, undefined);
  const what = `the event was stored, and the watch did not get it: ${detail}`;
  return failed(what, cause instanceof TooLate ? NOT_DELIVERED_ADVICE : advice!);
}

const NOT_DELIVERED_ADVICE = [
  'With several servers behind one address, all of them have to share one log. A Feed that keeps its log on its own disk runs as one replica.',
  'Or a proxy holds responses back: let it stream them (nginx: `grpc_pass`, not `proxy_pass` with `proxy_buffering`).',
];

/** Uploads an event in a call of its own. @throws UploadFailed */
export async function uploadOne(
  examined: Examined,
  id: string,
  start: typeof startCall = startCall,
): Promise<UploadResult> {
  const { signal, topic } = examined;
  const probe = await start(examined, '/feed.v1.FeedService/UploadEvents');
  try {
    const event = {
      id,
      topic,
      body: 'from `feed doctor`',
      at: undefined,
      cursor: '',
      attributes: {},
    };
    await within(probe.call.write(frame(Event.encode(event).finish())), signal);
    probe.call.end();
    const messages = await within(probe.call.read(), signal);
    if (!messages) throw new FeedError('INTERNAL', 'the upload ended without a result');
    examined.uploadHeaders = probe.responseHeaders();
    return UploadResult.decode(messages[0]);
  } catch (error) {
    if (signal.aborted) throw error;
    if (error instanceof FeedError && error.status === 'PERMISSION_DENIED')
      examined.mayUpload = false;
    throw new UploadFailed(callFailed(error, probe.responseHeaders()));
  } finally {
    probe.call.cancel();
  }
}

/** Resolves when the watch gets the event with this id. */
async function arrivalOf({ call }: ProbeCall, id: string): Promise<void> {
  for (;;) {
    const messages = await call.read();
    if (!messages) throw new FeedError('UNAVAILABLE', 'the server ended the watch');
    if (messages.some((message) => Event.decode(message).id === id)) return;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

/** Shows for how long an upload that broke can be sent again. */
export async function checkDeduplication({ uploadHeaders }: Examined): Promise<Finding> {
  const window = uploadHeaders?.['feed-dedup-window'];
  const ids = Number(uploadHeaders?.['feed-dedup-ids'] ?? 0);
  const consequence = 'an upload that breaks can not be sent again';
  if (window === undefined)
    return warning(`the server does not name its deduplication window: ${consequence}`, [
      'The server is of an earlier version: upgrade it. If it is not, a proxy drops its response headers: let it pass feed-dedup-window and feed-dedup-ids.',
    ]);
  const milliseconds = Number(window);
  if (milliseconds === 0 || ids === 0)
    return warning(`deduplication is off: ${consequence}`, [
      'Set FEED_DEDUP_WINDOW on the server, such as 2m, its default.',
    ]);
  return ok(
    `an upload that breaks can be sent again within ${milliseconds / 1_000} s and ${ids.toLocaleString('en')} events`,
    { windowMilliseconds: milliseconds, ids },
  );
}
