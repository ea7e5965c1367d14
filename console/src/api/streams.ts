import { address, json } from './http.ts';

/** An open call, as feed.v1.OpenStream has it. */
export interface OpenStream {
  readonly id: string;
  /** Such as `/feed.v1.FeedService/Watch`, or `/http/Watch`. */
  readonly method: string;
  readonly principal: string;
  readonly peer: string;
  readonly topics: readonly string[];
  readonly startedAt: string;
  readonly events: number;
  readonly bytes: number;
  /** Only of a watch: how many events of its topics are stored and not sent to it yet. */
  readonly behind?: number;
  readonly replica: string;
}

export interface StreamList {
  readonly streams: readonly OpenStream[];
  readonly replica: string;
}

/** A stream as it comes: 64-bit numbers are strings in proto3's JSON. */
type WireStream = Omit<OpenStream, 'events' | 'bytes' | 'behind'> & {
  readonly events: string;
  readonly bytes: string;
  readonly behind?: string;
};

const fromWire = ({ events, bytes, behind, ...rest }: WireStream): OpenStream => ({
  ...rest,
  events: Number(events),
  bytes: Number(bytes),
  ...(behind === undefined ? {} : { behind: Number(behind) }),
});

/** Returns the open calls of the replica that answers, the oldest first. */
export async function listStreams(signal: AbortSignal): Promise<StreamList> {
  const { streams, replica } = await json<{ streams: WireStream[]; replica: string }>(
    address('streams'),
    signal,
  );
  return { streams: streams.map(fromWire), replica };
}

/** Ends a call. Its client gets ENDED_BY_OPERATOR. Throws `Problem` (STREAM_UNKNOWN) if this replica does not have it. */
export async function endStream(id: string): Promise<void> {
  await json(address(`streams/${encodeURIComponent(id)}`), undefined, { method: 'DELETE' });
}
