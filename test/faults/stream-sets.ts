export type Kind = 'Watch' | 'UploadEvents' | 'Chat';
export type State = 'idle' | 'in full flow' | 'blocked';
/** Streams of one kind that are all in one state. */
export type SetName = `${Kind} ${State}`;

export const KINDS: readonly Kind[] = ['Watch', 'UploadEvents', 'Chat'];
const STATES: readonly State[] = ['idle', 'in full flow', 'blocked'];

export const SETS: readonly SetName[] = KINDS.flatMap((kind) =>
  STATES.map((state): SetName => `${kind} ${state}`),
);

/** The topic of idle watches, without events. */
export const QUIET_TOPIC = 'quiet';
/** The topic of watches in full flow; uploads in full flow fill it. */
export const BUSY_TOPIC = 'busy.events';
/** The topic of blocked watches. Each of its events is larger than the window of a client that does not read. */
export const FULL_TOPIC = 'full';
/** The room of the blocked chats. */
export const BLOCKED_ROOM = 'blocked';

export interface OpenOptions {
  readonly address: string;
  /** How many streams, and how many connections for them, each set has. */
  readonly streams: number;
  readonly connections: number;
  /** The calls' deadline: milliseconds from their start. */
  readonly deadline?: number;
}

/** What a client does to all streams of a set. */
export type Act = 'cancel' | 'half-close' | 'send what is not a message' | 'read';

/** By set: the ways in which its streams ended for their client, and how many ended so. */
export type Outcomes = Partial<Record<SetName, Record<string, number>>>;
