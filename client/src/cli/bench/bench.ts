import type { Call } from '../../grpc/call.js';

/** The connection and the settings that all workloads of a run share. */
export interface Bench {
  /** Starts a call of FeedService, which the bench's signal cancels. */
  readonly open: (method: 'Watch' | 'UploadEvents' | 'Chat') => Promise<Call>;
  /** The beginning of the topics' names: the topic of a workload is `<prefix>.<name>`. */
  readonly prefix: string;
  /** At most this many events are uploaded, replayed or echoed, and half as many stored for the fan-out. */
  readonly events: number;
  /** The watches of the fan-out. */
  readonly watches: number;
  /** The size of a body, in bytes. */
  readonly bodyBytes: number;
  /** A workload takes at most about this many seconds. */
  readonly seconds: number;
  /** A workload calls it with the part that is done, 0 to 1. */
  readonly progress: (fraction: number) => void;
  /** How many events the topic of the upload holds. The upload sets it, for the replay. */
  uploaded: number;
}

/** The result of a workload. */
export interface Measured {
  /** The number of events stored or delivered, or of messages echoed. */
  readonly count: number;
  readonly seconds: number;
  /** The bytes of the events' frames, without HTTP/2. */
  readonly bytes: number;
  /** The times of the events that were timed, in milliseconds. */
  readonly latencies?: readonly number[];
}

/** One thing that is measured. */
export interface Workload {
  readonly name: 'upload' | 'replay' | 'acknowledgement' | 'delivery' | 'fan-out' | 'chat';
  /** The name of the counted things, such as `events stored`. */
  readonly unit: string;
  /** How many events it stores at most. */
  readonly stores: (bench: Bench) => number;
  /** Runs before the measurement, and is not measured. */
  readonly prepare?: (bench: Bench) => Promise<void>;
  readonly run: (bench: Bench) => Promise<Measured>;
}
