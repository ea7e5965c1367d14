import { once } from 'node:events';
import type { HttpCall } from './http-call.js';
import { ClientGone } from './http-call.js';

/**
 * Yields the body of a call's request as it comes, and reads no more than what is asked for. Stops at the abort of the call with its
 * reason. What is left is for the answer to deal with (HttpCall.finishEarly).
 *
 * @throws ClientGone if the body ends before its end
 */
export async function* bodyOf(call: HttpCall): AsyncGenerator<Buffer> {
  const { request, signal } = call;
  const gone = (): void => call.abort(new ClientGone('the client has not sent all of the body'));
  request.once('aborted', gone);
  for (;;) {
    signal.throwIfAborted();
    const chunk = request.read() as Buffer | null;
    if (chunk) {
      call.receivedAt = performance.now();
      yield chunk;
    } else if (request.readableEnded) {
      return;
    } else {
      await more(call);
    }
  }
}

/** Resolves once there may be more of the body, or it has ended. @throws the reason of the call's abort */
async function more({ request, signal }: HttpCall): Promise<void> {
  const found = new AbortController();
  const either = AbortSignal.any([signal, found.signal]);
  const options = { signal: either };
  try {
    await Promise.race([once(request, 'readable', options), once(request, 'end', options)]);
  } catch {
    signal.throwIfAborted();
  } finally {
    found.abort();
  }
}
