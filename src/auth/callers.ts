import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Caller, ANYONE } from '../feed/caller.js';
import { FeedError } from '../feed/errors.js';
import type { LiveCall, LiveCalls } from '../feed/live-calls.js';
import type { Policy } from './policy.js';
import { Session } from './session.js';
import type { Tokens, TokenSubject } from './tokens.js';

/** The token and the certificate that a client sends with a call. */
export interface Credentials {
  /** The values of the header `authorization`. */
  readonly authorization: readonly string[];
  /** The name in the certificate of the client's connection; undefined if it has shown none. */
  readonly peerIdentity: string | undefined;
}

/** The settings of authentication and permission, ready for use. */
export interface CallerRules {
  /** Checks tokens, which every caller must show; undefined if none is needed. */
  readonly tokens: Tokens | undefined;
  /** True if every client must show a certificate. If both are needed, the token says who it is. */
  readonly demandsCertificate: boolean;
  /** Returns the current policy; undefined if everybody who is known may do everything. */
  readonly policy: () => Policy | undefined;
}

/** Open calls are looked at this often (milliseconds): at most so long after its token expires, a call ends. */
const LOOK_INTERVAL = 1_000;

/** When the policy has changed, so many topics and rooms of open calls are looked at before other work has its turn. */
const MOST_LOOKS = 4_096;

/** Finds out who makes a call, and ends calls whose callers are no longer known or may no longer make them. */
export class Callers {
  private readonly sessions = new WeakMap<LiveCall, Session>();
  private readonly timer: NodeJS.Timeout | undefined;

  /** @param calls the open calls of all doors */
  constructor(
    private readonly rules: CallerRules,
    private readonly calls: LiveCalls,
  ) {
    if (rules.tokens) this.timer = setInterval(() => this.endExpired(), LOOK_INTERVAL).unref();
  }

  /** True if callers must say who they are. */
  get areAsked(): boolean {
    return this.rules.tokens !== undefined || this.rules.demandsCertificate;
  }

  /**
   * Finds out who makes a call, by its token or else by its connection's certificate.
   *
   * @throws FeedError UNAUTHENTICATED, TOKEN_EXPIRED or KEYS_UNAVAILABLE
   */
  async identify({ authorization, peerIdentity }: Credentials): Promise<TokenSubject> {
    const { tokens, demandsCertificate } = this.rules;
    if (demandsCertificate && peerIdentity === undefined)
      throw new FeedError(
        'UNAUTHENTICATED',
        'the client certificate names nobody: it needs one SPIFFE ID, or else one common name',
      );
    if (tokens) return tokens.verify(bearerOf(authorization));
    return { principal: peerIdentity ?? '', expiresAt: Infinity };
  }

  /**
   * Returns the caller of an open call, for its use case. From now on the call is aborted when the caller's token expires, or
   * when the policy changes and no longer allows what the call does.
   */
  async admit(call: LiveCall, credentials: Credentials): Promise<Caller> {
    if (!this.areAsked) return ANYONE;
    const { principal, expiresAt } = await this.identify(credentials);
    const session = new Session(principal, expiresAt, this.rules.policy);
    this.sessions.set(call, session);
    return session;
  }

  /**
   * Ends the calls that the policy no longer allows. Call it when the policy has changed. A million rooms and topics may be open, so it
   * looks at a part of them at a time. Calls that begin meanwhile are asked by the new policy anyway.
   */
  async policyChanged(): Promise<void> {
    let looks = 0;
    for (const [call] of this.calls.numbered()) {
      const session = this.sessions.get(call);
      if (!session) continue;
      this.endIf(session.problem(), call);
      looks += 1 + session.remembered;
      if (looks < MOST_LOOKS) continue;
      looks = 0;
      await nextTurn();
    }
  }

  close(): void {
    clearInterval(this.timer);
  }

  private endExpired(): void {
    const now = Date.now();
    for (const call of this.calls) {
      const session = this.sessions.get(call);
      if (session && session.expiresAt <= now) this.endIf(expired(), call);
    }
  }

  private endIf(error: FeedError | undefined, call: LiveCall): void {
    if (!error) return;
    this.sessions.delete(call);
    call.abort(error);
  }
}

/** Returns the token of the one header `Authorization: Bearer <token>`. @throws FeedError */
function bearerOf(authorization: readonly string[]): string {
  if (authorization.length === 0)
    throw new FeedError(
      'UNAUTHENTICATED',
      'the call has no token: send the header "authorization: Bearer <token>"',
    );
  const match = /^bearer +([^\s,]+)$/i.exec(authorization[0]);
  if (authorization.length > 1 || !match)
    throw new FeedError('UNAUTHENTICATED', 'the header "authorization" is not "Bearer <token>"');
  return match[1];
}

function expired(): FeedError {
  return new FeedError('TOKEN_EXPIRED', 'the token of this call has expired: go on with a new one');
}
