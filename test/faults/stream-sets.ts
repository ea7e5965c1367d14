export type Kind = 'Watch' | 'UploadEvents' | 'Chat';
export type State = 'idle' | 'in full flow' | 'blocked';
/** Streams of one kind that are all in one state. */
export type SetName = `${Kind} ${State}`;

export const KINDS: readonly Kind[] = ['Watch', 'UploadEvents', 'Chat'];
const STATES: readonly State[] = ['idle', 'in full flow', 'blocked'];

export const SETS: readonly SetName[] = KINDS.flatMap((kind) =>
  STATES.map((state): SetName => `${kind} ${state}`),
);

/** Has no events. */
export const QUIET_TOPIC = 'quiet';
/** The uploads that are in full flow feed the watches that are. */
export const BUSY_TOPIC = 'busy';
/** Has more events than a watch may be sent that does not read. */
export const FULL_TOPIC = 'full';
/** Where the blocked chats are. */
export const BLOCKED_ROOM = 'blocked';

export interface OpenOptions {
  readonly address: string;
  /** Of each set, over so many connections of its own. */
  readonly streams: number;
  readonly connections: number;
  /** Milliseconds. */
  readonly deadline?: number;
}

/** What a client does to all streams of a set. */
export type Act = 'cancel' | 'half-close' | 'send what is not a message' | 'read';

/** How streams ended for their client, and how many did so. */
export type Outcomes = Partial<Record<SetName, Record<string, number>>>;
