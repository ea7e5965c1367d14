import { setTimeout as sleep } from 'node:timers/promises';
import { FeedError } from '../../errors.js';
import { StartPosition, UploadResult } from '../../gen/feed/v1/feed.js';
import type { Call } from '../../grpc/call.js';
import { frame } from '../../grpc/frames.js';
import { watchRequest } from '../../watch-request.js';
import type { Bench, Measured, Workload } from './bench.js';
import { ageOf, chatMessages, EventMaker } from './events.js';

/** Events are written in batches of at most about this size, or of one event. */
const BATCH_BYTES = 64 * 2 ** 10;
/** At most this many acknowledgements are timed. */
const MAX_ACKNOWLEDGEMENTS = 5_000;
/** The events a second whose delivery is timed: few enough that none waits for another. */
const DELIVERIES_PER_SECOND = 200;

/** Stores events in one stream, as fast as the server takes them. */
const upload: Workload = {
  name: 'upload',
  unit: 'events stored',
  stores: ({ events }) => events,
  run: (bench) => uploadAll(bench, bench.progress),
};

async function uploadAll(bench: Bench, progress: (fraction: number) => void): Promise<Measured> {
  const call = await bench.open('UploadEvents');
  const maker = new EventMaker(`${bench.prefix}.upload`, bench.bodyBytes);
  return timed(async (secondsNow) => {
    const { bytes } = await send(call, maker, bench.events, (sent) => {
      progress(Math.max(sent / bench.events, secondsNow() / bench.seconds));
      return secondsNow() < bench.seconds;
    });
    const { received } = await resultOf(call);
    bench.uploaded = received;
    return { count: received, bytes };
  });
}

/** Reads the events that the upload stored. */
const replay: Workload = {
  name: 'replay',
  unit: 'events delivered',
  stores: (bench) => (bench.uploaded === 0 ? bench.events : 0),
  async prepare(bench) {
    if (bench.uploaded === 0) await uploadAll(bench, () => {});
  },
  async run(bench) {
    const position = StartPosition.START_POSITION_EARLIEST;
    const call = await openWatch(bench, 'upload', position);
    const read = new Reading([call], bench.uploaded);
    return timed(async (secondsNow) => {
      await read.untilDone(bench.seconds - secondsNow(), bench.progress);
      return read;
    });
  },
};

/** Times uploads of one event each, one after another. */
const acknowledgement: Workload = {
  name: 'acknowledgement',
  unit: 'uploads of one event',
  stores: () => MAX_ACKNOWLEDGEMENTS,
  run(bench) {
    const maker = new EventMaker(`${bench.prefix}.acknowledgement`, bench.bodyBytes);
    const latencies: number[] = [];
    return timed(async (secondsNow) => {
      let bytes = 0;
      while (latencies.length < MAX_ACKNOWLEDGEMENTS && secondsNow() < bench.seconds) {
        const start = performance.now();
        const call = await bench.open('UploadEvents');
        ({ bytes } = await send(call, maker, 1, () => true, bytes));
        await resultOf(call);
        latencies.push(performance.now() - start);
        bench.progress(secondsNow() / bench.seconds);
      }
      return { count: latencies.length, bytes, latencies };
    });
  },
};

/** Times the way of events from an upload to a watch, at a rate at which none waits for another. */
const delivery: Workload = {
  name: 'delivery',
  unit: `events delivered, ${DELIVERIES_PER_SECOND} a second`,
  stores: deliveries,
  async run(bench) {
    const count = deliveries(bench);
    const watch = await openWatch(bench, 'delivery');
    const latencies: number[] = [];
    const read = new Reading([watch], count, (message) => latencies.push(ageOf(message)));
    const call = await bench.open('UploadEvents');
    const maker = new EventMaker(`${bench.prefix}.delivery`, bench.bodyBytes);
    return timed(async (secondsNow) => {
      for (let sent = 0; sent < count; sent++) {
        const early = sent / DELIVERIES_PER_SECOND - secondsNow();
        if (early > 0) await sleep(early * 1_000);
        await call.write(maker.make(1));
        bench.progress(sent / count);
      }
      await resultOf(call);
      await read.untilDone(bench.seconds, bench.progress);
      return { count: read.count, bytes: read.bytes, latencies };
    });
  },
};

function deliveries({ seconds }: Bench): number {
  return Math.ceil(seconds * DELIVERIES_PER_SECOND);
}

/** Stores events that many watches get. */
const fanOut: Workload = {
  name: 'fan-out',
  unit: 'events delivered',
  stores: fanOutEvents,
  async run(bench) {
    const { watches, seconds } = bench;
    const count = fanOutEvents(bench);
    const calls = await Promise.all(
      Array.from({ length: watches }, () => openWatch(bench, 'fan-out')),
    );
    const read = new Reading(calls, count * watches);
    const call = await bench.open('UploadEvents');
    const maker = new EventMaker(`${bench.prefix}.fan-out`, bench.bodyBytes);
    return timed(async (secondsNow) => {
      await send(call, maker, count, () => secondsNow() < seconds);
      const { received } = await resultOf(call);
      read.total = received * watches;
      // Events that are still on their way count as well, but only for `seconds` more: a slow link may hold many of them.
      await read.untilDone(2 * seconds - secondsNow(), bench.progress);
      return read;
    });
  },
};

function fanOutEvents({ events }: Bench): number {
  return Math.ceil(events / 2);
}

/** Sends messages to no room: the server echoes them, and stores nothing. */
const chat: Workload = {
  name: 'chat',
  unit: 'messages echoed',
  stores: () => 0,
  async run(bench) {
    const call = await bench.open('Chat');
    const read = new Reading([call], bench.events);
    const size = Math.max(1, Math.floor(BATCH_BYTES / (bench.bodyBytes + 20)));
    const batch = chatMessages(size, bench.bodyBytes);
    return timed(async (secondsNow) => {
      let sent = 0;
      while (sent < bench.events && secondsNow() < bench.seconds) {
        const count = Math.min(size, bench.events - sent);
        await call.write(batch.subarray(0, (batch.length / size) * count));
        sent += count;
      }
      read.total = sent;
      await read.untilDone(2 * bench.seconds - secondsNow(), bench.progress);
      return read;
    });
  },
};

/** All workloads, in the order in which they run. */
export const WORKLOADS: readonly Workload[] = [
  upload,
  replay,
  acknowledgement,
  delivery,
  fanOut,
  chat,
];

/** Runs `work`, which gets a function that returns the seconds since its start. Returns its result with its time. */
async function timed(
  work: (secondsNow: () => number) => Promise<Omit<Measured, 'seconds'>>,
): Promise<Measured> {
  const start = performance.now();
  const secondsNow = (): number => (performance.now() - start) / 1_000;
  const { count, bytes, latencies } = await work(secondsNow);
  return { count, bytes, seconds: secondsNow(), ...(latencies && { latencies }) };
}

/** Sends up to `count` events, while `goOn` returns true. Returns the bytes that were sent, added to `bytes`. */
async function send(
  call: Call,
  maker: EventMaker,
  count: number,
  goOn: (sent: number) => boolean,
  bytes = 0,
): Promise<{ readonly bytes: number }> {
  const size = Math.max(1, Math.floor(BATCH_BYTES / maker.storedBytes));
  let all = bytes;
  for (let sent = 0; sent < count && goOn(sent);) {
    const batch = maker.make(Math.min(size, count - sent));
    await call.write(batch);
    sent += Math.min(size, count - sent);
    all += batch.length;
  }
  return { bytes: all };
}

/** Ends an upload, and waits for its result. */
async function resultOf(call: Call): Promise<UploadResult> {
  call.end();
  const messages = await call.read();
  if (!messages) throw new FeedError('INTERNAL', 'the server ended the upload without a result');
  return UploadResult.decode(messages[0]);
}

/** Opens a watch of the topic `<prefix>.<name>`, and waits for its response headers. Without a position, it is live. */
async function openWatch(bench: Bench, name: string, position?: StartPosition): Promise<Call> {
  const call = await bench.open('Watch');
  const topic = `${bench.prefix}.${name}`;
  await call.write(frame(watchRequest({ topic, position })));
  call.end();
  await call.headers();
  return call;
}

/** How often progress is reported while calls are read, in milliseconds. */
const PROGRESS_EVERY = 50;

/** Reads calls in the background, and counts their messages. */
class Reading {
  count = 0;
  bytes = 0;
  private failure: { readonly error: unknown } | undefined;
  private wake: (() => void) | undefined;

  /**
   * @param total how many messages the calls get together
   * @param each is called with each message
   */
  constructor(
    private readonly calls: readonly Call[],
    public total: number,
    private readonly each?: (message: Buffer) => void,
  ) {
    for (const call of calls) void this.read(call);
  }

  /**
   * Resolves when all messages have come, or after `seconds`, and cancels the calls.
   *
   * @throws what a call failed with
   */
  async untilDone(seconds: number, progress: (fraction: number) => void): Promise<void> {
    const end = performance.now() + seconds * 1_000;
    while (this.count < this.total && performance.now() < end && !this.failure) {
      progress(this.count / this.total);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(PROGRESS_EVERY, end - performance.now()));
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const { failure } = this;
    for (const call of this.calls) call.cancel();
    if (failure) throw failure.error;
  }

  private async read(call: Call): Promise<void> {
    try {
      for (;;) {
        const messages = await call.read();
        if (!messages) throw new FeedError('UNAVAILABLE', 'the server ended the stream');
        for (const message of messages) {
          this.bytes += message.length;
          this.each?.(message);
        }
        this.count += messages.length;
        if (this.count >= this.total) this.wake?.();
      }
    } catch (error) {
      this.failure ??= { error };
      this.wake?.();
    }
  }
}
