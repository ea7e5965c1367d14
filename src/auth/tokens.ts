import { errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { FeedError } from '../feed/errors.js';
import { KeysUnavailableError } from './remote-keys.js';

export interface TokenRules {
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly string[];
  /** In milliseconds. */
  readonly clockTolerance: number;
}

/** The caller that a token names, and until when. */
export interface TokenSubject {
  readonly principal: string;
  /** The time (Date.now()) from which on the token is refused. */
  readonly expiresAt: number;
}

/** The longest token, and the longest name in it. Tokens of Kubernetes have about 1 KiB, names of SPIFFE up to 2 KiB. */
const MAX_TOKEN_CHARS = 16 * 1024;
const MAX_NAME_BYTES = 2048;

/** Checks tokens. */
export class Tokens {
  constructor(
    private readonly keyOf: JWTVerifyGetKey,
    private readonly rules: TokenRules,
  ) {}

  /**
   * Checks a token: its signature, issuer, audience and times.
   *
   * @throws FeedError UNAUTHENTICATED, TOKEN_EXPIRED or KEYS_UNAVAILABLE, whose message has nothing of the token
   */
  async verify(token: string): Promise<TokenSubject> {
    if (token.length > MAX_TOKEN_CHARS)
      throw refused(`it is longer than ${MAX_TOKEN_CHARS} characters`);
    const { sub, exp } = await this.payloadOf(token);
    if (typeof sub !== 'string' || sub === '') throw refused('it names nobody: it has no "sub"');
    if (Buffer.byteLength(sub) > MAX_NAME_BYTES || !sub.isWellFormed())
      throw refused('its "sub" is not a name');
    return { principal: sub, expiresAt: exp! * 1000 + this.rules.clockTolerance };
  }

  private async payloadOf(token: string): Promise<JWTPayload> {
    const { issuer, audience, algorithms, clockTolerance } = this.rules;
    const options = {
      issuer,
      audience,
      algorithms: [...algorithms],
      clockTolerance: clockTolerance / 1000,
      requiredClaims: ['exp', 'sub'],
    };
    try {
      return (await jwtVerify(token, this.keyOf, options)).payload;
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw this.asFeedError(error);
      // The token does not name its key, and several would fit.
      for await (const key of error) {
        try {
          return (await jwtVerify(token, key, options)).payload;
        } catch (failure) {
          if (failure instanceof errors.JWSSignatureVerificationFailed) continue;
          throw this.asFeedError(failure);
        }
      }
      throw refused('none of the keys has signed it');
    }
  }

  private asFeedError(error: unknown): Error {
    if (error instanceof KeysUnavailableError)
      return new FeedError(
        'KEYS_UNAVAILABLE',
        "the token can't be checked now, because the keys can't be read: the log of the service says why",
      );
    if (error instanceof errors.JWTExpired)
      return new FeedError('TOKEN_EXPIRED', 'the token has expired: send a new one');
    if (error instanceof errors.JWTClaimValidationFailed) return refused(this.whyNot(error));
    if (error instanceof errors.JOSEAlgNotAllowed)
      return refused(`it is signed with none of ${this.rules.algorithms.join(', ')}`);
    if (
      error instanceof errors.JWSSignatureVerificationFailed ||
      error instanceof errors.JWKSNoMatchingKey
    )
      return refused('none of the keys has signed it');
    if (error instanceof errors.JOSEError || error instanceof TypeError)
      return refused('it is no signed JSON Web Token');
    return error as Error;
  }

  /** Says which claim is missing or wrong. */
  private whyNot({ claim, reason }: errors.JWTClaimValidationFailed): string {
    if (reason === 'missing') return `it has no "${claim}"`;
    switch (claim) {
      case 'iss':
        return `its issuer is not "${this.rules.issuer}"`;
      case 'aud':
        return `it is not for the audience "${this.rules.audience}"`;
      case 'nbf':
      case 'iat':
        return `it is not valid yet ("${claim}")`;
      default:
        return `its "${claim}" is not valid`;
    }
  }
}

/** Returns the error of a caller who is not known. */
export function refused(why: string): FeedError {
  return new FeedError('UNAUTHENTICATED', `the token is refused: ${why}`);
}
