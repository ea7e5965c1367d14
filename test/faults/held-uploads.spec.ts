import { setTimeout as sleep } from 'node:timers/promises';
import { constants } from 'node:http2';
import { describe, expect, test, type TestContext } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { connectAdmin } from '../support/admin.js';
import { codec, errorInfo, upload, type Upload } from '../support/client.js';
import type { RawCall, RawClient } from '../support/raw-client.js';
import type { ServiceProcess } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { eventually, until, upToThrice } from '../support/wait.js';
import { answerOf, rawClient } from './answer.js';
import { event, idsIn, startHeld } from './held-disk.js';
import { ServiceLog } from './service-log.js';

const slowSync = useShim(new URL('../repository/slow-sync.c', import.meta.url));

const UPLOAD = '/feed.v1.FeedService/UploadEvents';
/** What an upload may have waiting for a commit. How much more its client can send depends on how its bytes arrive. */
const WAITING = 1024 * 1024;
/** An upload that could send nothing for this long (milliseconds) is blocked. */
const STILL = 2_000;
const BODY = 'x'.repeat(8_000);
/** The ids of an upload that is more than four times as large as what may wait. */
const IDS = Array.from({ length: 600 }, (_, i) => `live-${i}`);

const start = async (context: TestContext, drainTimeout = '20s') => {
  const held = await startHeld(slowSync(context), {
    FEED_STREAM_WINDOW: '64KiB',
    FEED_SESSION_WINDOW: '128KiB',
    FEED_DRAIN_TIMEOUT: drainTimeout,
    FEED_LOG_LEVEL: 'debug',
    FEED_LOG_FORMAT: 'json',
  });
  return { ...held, log: new ServiceLog(held.service) };
};

/** An upload that has more to send than the service takes, and sends as much as it may. */
class LiveUpload {
  private sent = 0;
  private sentAt = 0;
  private left = IDS.length;

  private constructor(
    readonly raw: RawClient,
    readonly call: RawCall,
  ) {}

  static async begin(service: ServiceProcess, headers = {}): Promise<LiveUpload> {
    const raw = await rawClient(service.grpcAddress);
    const live = new LiveUpload(raw, raw.open('UploadEvents', headers).drop());
    void live.send();
    return live;
  }

  /** Waits until the service has taken as much of it as it may, and has logged that it is open. */
  async blocked(log: ServiceLog): Promise<void> {
    await until(
      () => this.sent > WAITING && performance.now() - this.sentAt > STILL,
      () => `an upload of more than 1 MiB: ${this.sent} bytes are sent`,
    );
    await eventually(() => expect(log.open.uploads).toBe(1));
    expect(this.left).toBeGreaterThan(IDS.length / 2);
  }

  private async send(): Promise<void> {
    const { stream } = this.call;
    for (const id of IDS) {
      const framed = frame(codec.event.serialize(event(id, BODY)));
      await new Promise((resolve) => stream.write(framed, resolve)); // resolves once the bytes have left
      this.sent += framed.length;
      this.sentAt = performance.now();
      this.left--;
    }
  }
}

describe('a live upload that waits for room while a commit waits for the disk', () => {
  test.for<{ ending: string; headers?: object; end?: (live: LiveUpload) => void; status: string }>([
    {
      ending: 'is cancelled',
      end: ({ call }) => call.stream.close(constants.NGHTTP2_CANCEL),
      status: 'CANCELLED',
    },
    {
      ending: 'passes its deadline',
      headers: { 'grpc-timeout': '20S' }, // leaves time to block the upload first, on a busy machine
      status: 'DEADLINE_EXCEEDED',
    },
    {
      ending: 'loses its client',
      end: ({ raw }) => raw.session.socket.destroy(),
      status: 'CANCELLED',
    },
  ])(
    'and $ending is not acknowledged, keeps a prefix of its events, and is released once the disk answers',
    async ({ headers, end, status }, context) => {
      const { service, log, waits, release } = await start(context);
      const live = await LiveUpload.begin(service, headers);
      await waits();
      await live.blocked(log);
      end?.(live);
      // A client that is still connected gets its status at the deadline, not when the disk answers.
      const trailers = await live.call.trailers;
      expect(trailers?.['grpc-status']).toBe(end ? undefined : '4');
      await live.call.closed;
      release();
      await eventually(() => expect(log.open.uploads).toBe(0));

      const ended = await eventually(() => {
        const [, last] = log.ends.filter(({ method }) => method === UPLOAD);
        expect(last).toMatchObject({ status });
        return last;
      });
      const [before, ...stored] = await idsIn(service);
      expect(before).toBe('before');
      expect(stored.length * BODY.length).toBeGreaterThan(1_000_000);
      expect(stored).toEqual(IDS.slice(0, ended.events));
    },
  );

  test('and is drained ends with DRAINING and the number of stored events, and the process with 0', async (context) => {
    const drained = async () => {
      const { service, log, waits, release, restart } = await start(context, '100ms');
      const live = await LiveUpload.begin(service);
      const answer = answerOf(live.call);
      await waits();
      await live.blocked(log);
      service.process.kill('SIGTERM');
      await until(() => service.output.join('').includes('draining'), 'the drain');
      // By then the drain timeout of 100 ms is over, and the 4 s in which the disk may still answer are not.
      await sleep(400);
      release();
      const told = await answer;
      expect(await service.ended()).toEqual({ code: 0, signal: null });
      return { told, log, restart };
    };
    // They are over if this process stands still: the connection was closed, and the call has no answer.
    const { told, log, restart } = await upToThrice(
      drained,
      (found) => !found.told.startsWith('reset'),
    );
    expect(log.open.uploads).toBe(0);
    expect(told).toMatch(/^UNAVAILABLE DRAINING received=\d+$/);
    const [received] = /\d+$/.exec(told)!;
    const [before, ...stored] = await idsIn(await restart());
    expect(before).toBe('before');
    expect(stored.length * BODY.length).toBeGreaterThan(1_000_000);
    expect(stored).toEqual(IDS.slice(0, Number(received)));
  });
});

test('an upload that an operator ends while it waits only for its result does not get that', async (context) => {
  const { service, client, log, waits, release } = await start(context);
  const answer = upload(client, [event('a')]);
  await waits();
  await eventually(() => expect(log.open.uploads).toBe(1));
  await sleep(500); // The end of its request is read behind the event.
  const admin = connectAdmin(service.grpcAddress);
  const [{ id }] = await admin.listStreams();
  await admin.endStream(id);
  release();
  const { error } = await answer;
  expect(error && errorInfo(error.metadata)).toMatchObject({
    reason: 'ENDED_BY_OPERATOR',
    metadata: { received: '1' },
  });
  expect(await idsIn(service)).toEqual(['before', 'a']);
});

test('the twin of an event in flight is not answered before it, gets its cursor, and is not stored again', async (context) => {
  const { service, client, log, waits, release } = await start(context);
  const answers: Upload[] = [];
  const send = (of: typeof client) =>
    upload(of, [event('a')]).then((answer) => void answers.push(answer));
  const first = send(client);
  await waits();
  const second = send(service.connect());
  await eventually(() => expect(log.open.uploads).toBe(2));
  expect(answers).toEqual([]);
  release();
  await Promise.all([first, second]);

  const [one, other] = answers.map(({ result }) => result!);
  expect([one, other]).toMatchObject([{ received: 1 }, { received: 1 }]);
  expect(one.duplicates + other.duplicates).toBe(1);
  expect(other.lastCursor).toBe(one.lastCursor);
  expect(await idsIn(service)).toEqual(['before', 'a']);
});
