import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { EventRepository, type LogStatus } from '../repository/event-repository.js';
import type { Histogram } from '../telemetry/histogram.js';
import { quantile } from '../telemetry/quantile.js';
import { Chats } from './chat.js';
import { type TopicCounts, Traffic } from './traffic.js';
import { Uploads } from './upload.js';
import { Watches } from './watch.js';

/** The length of a step, in seconds, and how many are kept: 15 minutes. */
export const STEP_SECONDS = 5;
const MOST_STEPS = 180;

/** The numbers of one step: rates per second, latencies in seconds; undefined where nothing was measured. */
export interface Step {
  /** The end of the step, in seconds since 1970. */
  readonly at: number;
  readonly eventsIn: number;
  readonly bytesIn: number;
  /** Deliveries: an event that goes to ten watches counts ten times. */
  readonly eventsOut: number;
  readonly bytesOut: number;
  readonly duplicates: number;
  /** Messages of chats, both ways. */
  readonly messages: number;
  /** What was open, and the size of what was held, at the end of the step. */
  readonly watches: number;
  readonly uploads: number;
  readonly chats: number;
  readonly logBytes: number | undefined;
  /** From when events came until they were stored. */
  readonly ackP50: number | undefined;
  readonly ackP99: number | undefined;
  /** From when events came until they were handed to the connection of a watch that waited for them. */
  readonly deliveryP50: number | undefined;
  readonly deliveryP99: number | undefined;
}

/** Counts that only grow. */
interface Totals {
  readonly time: number;
  readonly received: { readonly events: number; readonly bytes: number };
  readonly sent: { readonly events: number; readonly bytes: number };
  readonly duplicates: number;
  readonly messages: number;
  readonly ack: HistogramState;
  readonly delivery: HistogramState;
}

interface HistogramState {
  readonly bounds: readonly number[];
  readonly counts: readonly number[];
  readonly count: number;
}

/** Remembers the last 15 minutes as steps of 5 s, from the same counts that metrics have. */
@Injectable()
export class RecentSteps implements OnApplicationShutdown {
  private readonly steps: Step[] = [];
  private last: Totals;
  private readonly timer = setInterval(() => void this.step(), STEP_SECONDS * 1_000).unref();

  constructor(
    private readonly repository: EventRepository,
    private readonly traffic: Traffic,
    private readonly watches: Watches,
    private readonly uploads: Uploads,
    private readonly chats: Chats,
  ) {
    this.last = this.totals();
  }

  /** The steps that are over, the oldest first. */
  get all(): readonly Step[] {
    return this.steps;
  }

  onApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  private async step(): Promise<void> {
    const before = this.last;
    const now = this.totals();
    this.last = now;
    const seconds = (now.time - before.time) / 1_000;
    const rate = (read: (totals: Totals) => number): number => (read(now) - read(before)) / seconds;
    const ack = (part: number) => quantileOf(before.ack, now.ack, part);
    const delivery = (part: number) => quantileOf(before.delivery, now.delivery, part);
    const step = {
      at: Math.round(Date.now() / 1_000),
      eventsIn: rate(({ received }) => received.events),
      bytesIn: rate(({ received }) => received.bytes),
      eventsOut: rate(({ sent }) => sent.events),
      bytesOut: rate(({ sent }) => sent.bytes),
      duplicates: rate(({ duplicates }) => duplicates),
      messages: rate(({ messages }) => messages),
      watches: this.watches.open.size,
      uploads: this.uploads.open,
      chats: this.chats.open,
      ackP50: ack(0.5),
      ackP99: ack(0.99),
      deliveryP50: delivery(0.5),
      deliveryP99: delivery(0.99),
    };
    // At the end of the process, the store may be closed.
    const log: LogStatus = await this.repository.status().catch(() => ({}));
    this.steps.push({ ...step, logBytes: log.heldBytes });
    if (this.steps.length > MOST_STEPS) this.steps.shift();
  }

  private totals(): Totals {
    const { traffic, repository, watches } = this;
    return {
      time: performance.now(),
      received: sum(traffic.received),
      sent: sum(traffic.sent),
      duplicates: traffic.duplicates,
      messages: traffic.chatReceived + traffic.chatSent,
      ack: stateOf(repository.report.appendSeconds),
      delivery: stateOf(watches.deliverySeconds),
    };
  }
}

function sum({ others, byTopic }: TopicCounts): { events: number; bytes: number } {
  let { events, bytes } = others;
  for (const count of byTopic.values()) {
    events += count.events;
    bytes += count.bytes;
  }
  return { events, bytes };
}

const stateOf = ({ bounds, counts, count }: Histogram): HistogramState => ({
  bounds,
  counts: [...counts],
  count,
});

function quantileOf(before: HistogramState, now: HistogramState, part: number): number | undefined {
  const counts = now.counts.map((count, i) => count - before.counts[i]);
  return quantile(now.bounds, counts, now.count - before.count, part);
}
