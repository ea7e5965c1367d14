import { isLasting, refused } from '../nats/refusal.js';
import { SetupError } from '../nats/setup-error.js';
import {
  CODE,
  RefusedError,
  type StreamApi,
  type StreamConfig,
  type StreamInfo,
} from '../nats/stream-api.js';

/** A message that no replica has got after this long (milliseconds) is dropped. */
const MAX_AGE = 60_000;
const MAX_BYTES = 64 * 2 ** 20;

/**
 * Returns the state of the stream that carries rooms, and makes the stream if there is none.
 *
 * @throws SetupError if it can't be made or used until an operator changes something; RefusedError or UnansweredError if it may
 * be later
 */
export async function roomsStream(api: StreamApi, replicas: number): Promise<StreamInfo> {
  const config = configOf(api.stream, replicas);
  try {
    return await infoOrCreated(api, config);
  } catch (error) {
    if (!(error instanceof RefusedError && isLasting(error))) throw error;
    throw refused(
      `the stream ${api.stream}, which carries the rooms of chats in 64 MiB of memory of each server that keeps it, can't be made ` +
        'or used',
      error,
    );
  }
}

async function infoOrCreated(api: StreamApi, config: StreamConfig): Promise<StreamInfo> {
  try {
    return usable(await api.info(), config);
  } catch (error) {
    if (!(error instanceof RefusedError && error.code === CODE.streamNotFound)) throw error;
    return api.create(config);
  }
}

function usable(info: StreamInfo, wanted: StreamConfig): StreamInfo {
  const { name, subjects, storage } = info.config;
  if (storage === wanted.storage && JSON.stringify(subjects) === JSON.stringify(wanted.subjects))
    return info;
  throw new SetupError(
    `the stream ${name} was not made by Feed, and Feed needs the name for the rooms of chats: remove it, or name another ` +
      'stream in FEED_NATS_STREAM',
  );
}

function configOf(stream: string, replicas: number): StreamConfig {
  return {
    name: stream,
    subjects: [`${stream}.>`],
    storage: 'memory',
    retention: 'limits',
    discard: 'old',
    num_replicas: replicas,
    max_age: MAX_AGE * 1e6,
    max_bytes: MAX_BYTES,
    max_msgs: -1,
    max_msgs_per_subject: -1,
    max_msg_size: -1,
    duplicate_window: 100e6,
    allow_direct: false,
    allow_atomic: false,
    metadata: {},
  };
}
