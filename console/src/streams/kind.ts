import type { OpenStream } from '../api/streams.ts';

const KINDS: Record<string, string> = { Watch: 'Watch', UploadEvents: 'Upload', Chat: 'Chat' };

/** How many topics of a watch are named, at most. A watch may have 1,000. */
const NAMED = 3;

/** Names the topics of a call, or its rooms: `orders shipping`, or the first of many and how many more there are. */
export const topicsOf = ({ topics }: Pick<OpenStream, 'topics'>): string =>
  topics.length > NAMED
    ? `${topics.slice(0, NAMED).join(' ')} and ${topics.length - NAMED} more`
    : topics.join(' ');

/** Names a call by its method: `Watch` is one over gRPC, `Watch, HTTP` one over HTTP. */
export function kindOf({ method }: Pick<OpenStream, 'method'>): string {
  const name = method.slice(method.lastIndexOf('/') + 1);
  return (KINDS[name] ?? name) + (method.startsWith('/http/') ? ', HTTP' : '');
}
