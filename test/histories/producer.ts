import { Metadata } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import type { UploadResult } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, type FeedClient } from '../support/client.js';
import type { UploadRecord } from './history.js';
import type { ProducerPlan, UploadPlan } from './plan.js';

type Sent = UploadRecord['events'][number];

/** Returns the body of the event with this id. The id `h1-0-2-7-300` ends with the body's size: 300 bytes. */
export function bodyOf(id: string): string {
  return id.padEnd(Number(id.slice(id.lastIndexOf('-') + 1)), '.');
}

/** Runs the planned uploads one after the other, and records each call. */
export async function produce(
  { topics, uploads }: ProducerPlan,
  names: { readonly call: string; readonly ids: string; readonly topics: readonly string[] },
  client: () => Promise<FeedClient>,
  record: (call: UploadRecord) => void,
): Promise<void> {
  for (const [number, plan] of uploads.entries()) {
    let events: readonly Sent[] = Array.from({ length: plan.events }, (_, i) => ({
      topic: names.topics[topics[i % topics.length]],
      id: `${names.ids}-${number}-${i}-${plan.bodyBytes}`,
    }));
    let { ending } = plan;
    for (;;) {
      const call = await upload(await client(), events, { ...plan, ending });
      record({ producer: names.call, ...call });
      const { result } = call;
      if (result.is === 'stored' || plan.again === 'nothing') break;
      if (plan.again === 'the rest' && result.is === 'failed')
        events = events.slice(result.received);
      ending = 'finish';
    }
  }
}

/** Makes one upload, and returns the record of it. */
export async function upload(
  client: FeedClient,
  events: readonly Sent[],
  { burst, pause, ending }: Pick<UploadPlan, 'burst' | 'pause' | 'ending'>,
): Promise<Omit<UploadRecord, 'producer'>> {
  const begun = Date.now();
  const answered = Promise.withResolvers<UploadRecord['result']>();
  let isOver = false;
  let lastCursor = '';
  const options = ending === 'deadline' ? { deadline: Date.now() + 2 * pause } : {};
  const call = client.UploadEvents(new Metadata(), options, (error, result: UploadResult) => {
    isOver = true;
    if (!error) {
      const { received, duplicates } = result;
      ({ lastCursor } = result);
      answered.resolve({ is: 'stored', received, duplicates });
      return;
    }
    const info = errorInfo(error.metadata);
    answered.resolve(
      info?.metadata.received === undefined
        ? { is: 'unknown', code: error.code }
        : { is: 'failed', received: Number(info.metadata.received), reason: info.reason },
    );
  });
  let sent = 0;
  for (const event of events) {
    if (isOver) break;
    if (ending === 'cancel' && sent > events.length / 2) {
      call.cancel();
      break;
    }
    call.write({ ...event, body: bodyOf(event.id) });
    if (++sent % burst === 0) await sleep(pause);
  }
  call.end();
  const result = await answered.promise;
  return { events: events.slice(0, sent), result, lastCursor, begun, ended: Date.now() };
}
