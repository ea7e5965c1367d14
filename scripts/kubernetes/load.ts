// The load of scripts/kubernetes.sh, in a pod of its own: uploads and watches of the SDK, which see each event once, in order,
// or say what they saw. It prints JSON lines:
//
//   {"ready": true}                      every watch has events
//   SIGUSR2: {"silence": 5.1, ...}       what happened since the signal before (see Report)
//   SIGHUP:  {"events": 1000, ...}       the uploads end; all watches have all events, or it fails (see Outcome)
import { connect as http2Connect } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type FeedError, type Watch } from '@feed-events/client';

const ADDRESS = process.env.FEED_ADDRESS!;
const UPLOADS = Number(process.env.UPLOADS);
const WATCHES = Number(process.env.WATCHES);
/** Each upload stores an event this often (milliseconds). */
const INTERVAL = 100;
/** How many calls share a client, and so a connection. */
const SHARE = 10;
/** How often (milliseconds) a new connection is tried. */
const PROBE_INTERVAL = 50;
/** A new connection that is not served within this time (milliseconds) counts as refused. */
const PROBE_TIMEOUT = 1_000;
/** How long (milliseconds) all watches may take to get all events in the end. */
const CATCH_UP = 60_000;

/** The figures since the report before, in seconds. */
interface Report {
  /** The longest time between two events of a watch. */
  silence: number;
  /** The longest time without an acknowledgement of any upload. */
  unacknowledged: number;
  /** The longest time in which no new connection was served; INTERVAL of the probe more or less. */
  refused: number;
  /** When that time began and ended, as ISO 8601. */
  refusedFrom?: string;
  refusedTo?: string;
  /** How often a watch or an upload had to connect again. */
  reconnects: number;
}

interface Outcome {
  readonly events: number;
  readonly deliveries: number;
  readonly lost: number;
  readonly twice: number;
  /** The watches that did not get all events in time. */
  readonly incomplete: number;
  /** The uploads that failed, with why. */
  readonly failed: readonly string[];
}

const NOTHING: Report = { silence: 0, unacknowledged: 0, refused: 0, reconnects: 0 };
let report = { ...NOTHING };
const ending = new AbortController();
/** When an upload was acknowledged last, and when a new connection was served last (performance.now(), Date.now()). */
const last = { acknowledged: performance.now(), served: Date.now() };
const failed: string[] = [];

const print = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const seconds = (since: number): number => (performance.now() - since) / 1000;

/** Yields numbers at an even pace, until the load ends. */
class Numbers {
  count = 0;

  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    while (!ending.signal.aborted) {
      yield String(this.count++);
      await sleep(INTERVAL);
    }
  }
}

/** A watch as its consumer sees it: the next event is number `next`. */
class Consumer {
  next = 0;
  lost = 0;
  twice = 0;
  at = performance.now();

  async follow(watch: Watch): Promise<void> {
    for await (const { body } of watch) {
      report.silence = Math.max(report.silence, seconds(this.at));
      this.at = performance.now();
      const number = Number(body);
      if (number < this.next) this.twice++;
      else {
        this.lost += number - this.next;
        this.next = number + 1;
      }
    }
  }
}

/** Resolves with true once the server has begun HTTP/2 on a new connection. */
function isServed(): Promise<boolean> {
  return new Promise((resolve) => {
    const session = http2Connect(`http://${ADDRESS}`);
    const end = (served: boolean): void => {
      clearTimeout(timer);
      session.destroy();
      resolve(served);
    };
    const timer = setTimeout(end, PROBE_TIMEOUT, false);
    session.on('error', () => end(false)).once('remoteSettings', () => end(true));
  });
}

/** Notes a time in which no new connection was served. */
function noteRefused(): void {
  const refused = (Date.now() - last.served) / 1000;
  if (refused <= report.refused) return;
  report.refused = refused;
  report.refusedFrom = new Date(last.served).toISOString();
  report.refusedTo = new Date().toISOString();
}

async function probe(): Promise<void> {
  for (;;) {
    const triedAt = Date.now();
    if (await isServed()) {
      noteRefused();
      last.served = triedAt;
    }
    await sleep(PROBE_INTERVAL);
  }
}

const clients = Array.from({ length: Math.ceil((UPLOADS + WATCHES) / SHARE) }, () =>
  connect(ADDRESS),
);
const run = process.env.RUN!;
const topics = Array.from({ length: UPLOADS }, (_, i) => `kubernetes.${run}.${i}`);
const sources = topics.map(() => new Numbers());

const uploads = topics.map(async (topic, i) => {
  let stored = 0;
  try {
    await clients[i % clients.length].upload(topic, sources[i], {
      onProgress: (progress) => {
        if (progress.stored === stored) return;
        stored = progress.stored;
        report.unacknowledged = Math.max(report.unacknowledged, seconds(last.acknowledged));
        last.acknowledged = performance.now();
      },
      onRetry: () => report.reconnects++,
    });
  } catch (error) {
    failed.push(`${topic}: ${(error as Error).message}`);
    print({ failed: failed.at(-1) });
  }
});

const consumers = Array.from({ length: WATCHES }, () => new Consumer());
for (const [i, consumer] of consumers.entries()) {
  const topic = topics[i % UPLOADS];
  const watch = clients[(UPLOADS + i) % clients.length].watch(topic, {
    from: 'earliest',
    onState: ({ name }) => {
      if (name === 'reconnecting') report.reconnects++;
    },
  });
  consumer.follow(watch).catch((error: unknown) => {
    const { message, reason, metadata } = error as FeedError;
    failed.push(`a watch of ${topic} after ${watch.cursor}: ${message}`);
    print({ at: new Date(), failed: failed.at(-1), reason, metadata });
  });
}

process.on('SIGUSR2', () => {
  // What has not ended yet counts, too.
  const silences = consumers.map(({ at }) => seconds(at));
  report.silence = Math.max(report.silence, ...silences);
  report.unacknowledged = Math.max(report.unacknowledged, seconds(last.acknowledged));
  noteRefused();
  print(report);
  report = { ...NOTHING };
});
process.on('SIGHUP', () => {
  ending.abort();
});

void probe();
while (consumers.some(({ next }) => next === 0)) await sleep(INTERVAL);
report = { ...NOTHING };
print({ ready: true });

while (!ending.signal.aborted) await sleep(INTERVAL);
await Promise.all(uploads);
const incomplete = (): number =>
  consumers.filter(({ next }, i) => next < sources[i % UPLOADS].count).length;
for (const end = Date.now() + CATCH_UP; incomplete() > 0 && Date.now() < end;)
  await sleep(INTERVAL);
const sum = (numbers: number[]): number => numbers.reduce((all, one) => all + one, 0);
const outcome: Outcome = {
  events: sum(sources.map(({ count }) => count)),
  deliveries: sum(consumers.map(({ next, lost }) => next - lost)),
  lost: sum(consumers.map(({ lost }) => lost)),
  twice: sum(consumers.map(({ twice }) => twice)),
  incomplete: incomplete(),
  failed,
};
print(outcome);
process.exit(outcome.lost + outcome.twice + outcome.incomplete + failed.length === 0 ? 0 : 1);
