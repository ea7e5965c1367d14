import { FeedError } from './errors.js';

/** The actions that a policy allows on topics; `chat` is about rooms. */
export type Verb = 'watch' | 'upload' | 'chat' | 'admin';

/** The one who makes a call, as the door that took the call found out. */
export interface Caller {
  /** The caller's name, as a token or a certificate says it; undefined if the service asks nobody who they are. */
  readonly principal: string | undefined;
  /**
   * True if the caller may do this with the topic, or with the room for `chat`; of a pattern, with all topics that it may match.
   * Without a topic: with any topic at all.
   */
  may(verb: Verb, topic?: string): boolean;
}

/** The caller of a service that asks nobody who they are: everything is allowed. */
export const ANYONE: Caller = { principal: undefined, may: () => true };

/** @throws FeedError TOPIC_FORBIDDEN if the caller may not do this */
export function requirePermission(caller: Caller, verb: Verb, topic?: string): void {
  if (!caller.may(verb, topic)) throw forbidden(caller, verb, topic);
}

/** Returns the error of a call that its caller may not make, or may no longer make. */
export function forbidden(
  { principal }: Caller,
  verb: Verb,
  topic?: string,
  metadata: Readonly<Record<string, string>> = {},
): FeedError {
  const who = principal === undefined ? 'this caller' : `"${principal}"`;
  const what = topic === undefined ? 'anything' : `"${topic}"`;
  const message = `${who} may not ${verb === 'admin' ? 'administer' : verb} ${what}: ask for a rule in the policy`;
  return new FeedError('TOPIC_FORBIDDEN', message, metadata);
}
