import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { refused, withAdvice } from '../../nats/refusal.js';
import { throttled } from '../../nats/throttled.js';
import {
  CODE,
  type MessageQuery,
  RefusedError,
  type StreamApi,
  type StreamConfig,
  type StreamInfo,
  UnansweredError,
} from '../../nats/stream-api.js';
import type { Notices } from '../../telemetry/notices.js';
import { Epochs } from '../epochs.js';
import { AppendError } from '../event-repository.js';
import { type LogClock, logClock } from '../log-clock.js';
import type { ReplicaStart } from './log-state.js';
import {
  decode,
  encodeEpochs,
  endOf,
  type EpochsMessage,
  headAfter,
  type Message,
} from './message.js';
import {
  changedConfig,
  epochsSubjectOf,
  newConfig,
  prefixOf,
  type StreamSettings,
} from './stream-config.js';

export interface StartOptions extends StreamSettings {
  /** The stream's name in messages. */
  readonly location: string;
  readonly clock?: LogClock;
  /** Receives messages for the operator. */
  readonly notices: Notices;
  /** True once nobody waits for the start any more. */
  readonly isClosed: () => boolean;
}

/** The time (milliseconds) before JetStream is asked again that did not answer, or where another replica was making the stream. */
const RETRY_INTERVAL = 500;
/** A start tries this often to store the record of the epochs once more. */
const MOST_RENEWALS = 20;
/** While the stream does not answer, the log says so at most this often (milliseconds). */
const NOTICE_INTERVAL = 10_000;

/**
 * Makes the stream or checks it, and finds out where a replica begins to follow it. Waits as long as JetStream does not answer.
 *
 * @throws SetupError if the stream can't be used
 */
export async function findStart(api: StreamApi, options: StartOptions): Promise<ReplicaStart> {
  const { info, removed } = await openStream(api, options);
  const { created, config, state } = info;
  const find = (query: MessageQuery) => findMessage(api, config, query, options);
  const last = state.last_seq;
  const newest = last > 0 ? await find({ seq: last }) : undefined;
  const from = Math.max(1, newest ? await firstNeeded(newest, find, options) : last + 1);
  const before = from > 1 ? await find({ seq: from - 1 }) : undefined;
  const record = await epochsRecord(api, config, options);
  return {
    created,
    prefix: prefixOf(config),
    epochsSubject: epochsSubjectOf(config),
    from,
    last,
    before: {
      // Where the message before is not held, any position of it may have been given out.
      head: before ? headAfter(before) : from > 1 ? endOf(from - 1) : 0,
      storedAt: before?.storedAt ?? (from > 1 ? timeOf(state.last_ts) : 0),
      allIds: before?.allIds ?? 0,
      commit: before?.commit,
    },
    // Without a record, all epochs of before are forgotten.
    epochs: new Epochs((record ?? removed)?.starts ?? []),
    epochsAt: record?.sequence ?? 0,
    lag: (record ?? removed)?.lag ?? 0,
    subjects: state.num_subjects ?? 0,
  };
}

/** Returns a message of the stream, if it is held. */
async function findMessage(
  api: StreamApi,
  config: StreamConfig,
  query: MessageQuery,
  options: StartOptions,
): Promise<Message | undefined> {
  const found = await answer(() => api.message(query), options);
  const subject = found?.subject.slice(prefixOf(config).length);
  return found && decode(found.sequence, subject!, found.data);
}

/** Returns the newest record of the epochs. */
async function epochsRecord(
  api: StreamApi,
  config: StreamConfig,
  options: StartOptions,
): Promise<EpochsMessage | undefined> {
  const found = await findMessage(api, config, { last_by_subj: epochsSubjectOf(config) }, options);
  return found?.kind === 'epochs' ? found : undefined;
}

/** Returns the sequence of the first message whose ids deduplication needs: a binary search. */
async function firstNeeded(
  newest: Message,
  find: (query: MessageQuery) => Promise<Message | undefined>,
  { dedup: { ids, milliseconds }, clock = logClock(newest) }: StartOptions,
): Promise<number> {
  if (ids === 0) return newest.sequence;
  const oldest = Math.max(newest.storedAt, clock.now()) - milliseconds;
  let low = 1;
  let high = newest.sequence;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const message = await find({ seq: middle, next_by_subj: '>' });
    const isNeeded =
      !message || (message.storedAt >= oldest && message.allIds > newest.allIds - ids);
    if (isNeeded) high = middle;
    else low = message.sequence + 1;
  }
  return Math.min(low, newest.sequence);
}

/**
 * Makes the stream, or changes its limits to those of the settings: then `removed` is the record of the epochs as it was before, because a
 * lower limit may remove it at once, where it could not be renewed.
 */
async function openStream(
  api: StreamApi,
  options: StartOptions,
): Promise<{ readonly info: StreamInfo; readonly removed?: EpochsMessage }> {
  const { location, notices } = options;
  for (;;) {
    try {
      const info = await answer(() => api.info(), options);
      const changed = changedConfig(info.config, options, info.state.consumer_count > 0);
      if (!changed) return { info };
      const removed = await renewRecord(api, info.config, options);
      notices.info(`the configuration of ${location} changes`);
      return { info: await answer(() => api.update(changed), options), removed };
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      if (error.code !== CODE.streamNotFound) throw refused(`${location} can't be used`, error);
    }
    const config = newConfig(options);
    try {
      await answer(() => api.create(config), options);
      notices.info(`made ${location}`);
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      // Another replica may make it at the same time. Then it is there soon.
      if (error.code !== CODE.streamExists) throw refused(`${location} can't be made`, error);
      await sleep(RETRY_INTERVAL);
    }
  }
}

/**
 * Stores the record of the epochs once more, as the stream's newest message, so that a lower limit does not remove it. Returns the record.
 * It is not renewed where there is no room for it, or where other replicas are first each time.
 */
async function renewRecord(
  api: StreamApi,
  config: StreamConfig,
  options: StartOptions,
): Promise<EpochsMessage | undefined> {
  const subject = epochsSubjectOf(config);
  let record: EpochsMessage | undefined;
  for (let tries = 0; tries < MOST_RENEWALS; tries++) {
    record = await epochsRecord(api, config, options);
    const { last_seq: last } = (await answer(() => api.info(), options)).state;
    const newest = record && (await findMessage(api, config, { seq: last }, options));
    if (!record || !newest) break;
    const { storedAt, allIds } = newest;
    const { starts, lag } = record;
    const head = { commit: randomBytes(8), storedAt, before: headAfter(newest), allIds };
    const message = { subject, data: encodeEpochs({ starts, lag, ...head }) };
    const expected = { last, lastOf: { subject, sequence: record.sequence } };
    try {
      await answer(() => api.publish([message], expected, ''), options);
      break;
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
    }
  }
  return record;
}

/** Asks until there is an answer. */
async function answer<T>(
  question: () => Promise<T>,
  { notices, isClosed }: StartOptions,
): Promise<T> {
  const warn = throttled((why) => notices.warn(why), NOTICE_INTERVAL, performance.now());
  for (;;) {
    try {
      return await question();
    } catch (error) {
      if (!(error instanceof UnansweredError)) throw error;
      if (isClosed()) throw new AppendError('refused', 'the log is closed');
      warn(`waiting for JetStream: ${withAdvice(error)}`);
      await sleep(RETRY_INTERVAL);
    }
  }
}

/** Returns the milliseconds of a time that JetStream names; 0 for that of a stream that never had a message. */
export const timeOf = (text: string): number => Math.max(0, Date.parse(text));
