import type { OpenStream } from '../api/streams.ts';

const KINDS: Record<string, string> = { Watch: 'Watch', UploadEvents: 'Upload', Chat: 'Chat' };

/** Names a call by its method: `Watch` is one over gRPC, `Watch, HTTP` one over HTTP. */
export function kindOf({ method }: Pick<OpenStream, 'method'>): string {
  const name = method.slice(method.lastIndexOf('/') + 1);
  return (KINDS[name] ?? name) + (method.startsWith('/http/') ? ', HTTP' : '');
}
