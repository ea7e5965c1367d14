import { readFileSync } from 'node:fs';
import { type Authenticator, jwtAuthenticator, nkeys } from '@nats-io/transport-node';
import { SetupError } from './setup-error.js';

/** The JWT of a user, and the seed of the user's NKey, which signs what the server asks to be signed. */
interface Credentials {
  readonly jwt: string;
  readonly seed: Uint8Array;
}

/** The part of a user's JWT that Feed reads. `exp` is in seconds; 0 or nothing means that the JWT never expires. */
interface UserClaims {
  readonly sub: string;
  readonly exp?: number;
}

/** A block of a creds file: -----BEGIN NATS USER JWT-----, the text, ------END NATS USER JWT------. */
const BLOCK = /-{3,}BEGIN [^-]+-{3,}\s+(\S+)\s+-{3,}END /g;

/**
 * Returns what proves to a server who the user of a creds file is. The file is read again for each connection, so a file that
 * was replaced is used from the next reconnect on.
 *
 * @param setting the name of the setting that names the file, for errors
 * @throws SetupError if the file can't be used
 */
export function userOf(path: string, setting: string): Authenticator {
  let known = readCredentials(path, setting);
  return (nonce) => {
    try {
      known = readCredentials(path, setting);
    } catch {
      // The file is perhaps just being replaced. An error thrown here would close the connection for good.
    }
    return jwtAuthenticator(known.jwt, known.seed)(nonce);
  };
}

function readCredentials(path: string, setting: string): Credentials {
  const unusable = (why: string): SetupError =>
    new SetupError(`${setting}: ${path} can't be used: ${why}`);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw unusable((error as Error).message);
  }
  const [jwt, seed] = Array.from(text.matchAll(BLOCK), ([, body]) => body);
  let claims: UserClaims;
  let user: string;
  try {
    const [, payload] = jwt.split('.');
    claims = JSON.parse(String(Buffer.from(payload, 'base64url'))) as UserClaims;
    user = nkeys.fromSeed(Buffer.from(seed)).getPublicKey();
  } catch {
    throw unusable(
      "it is no creds file, which has a user's JWT and the seed of its NKey, as `nsc generate creds` writes them",
    );
  }
  if (claims.sub !== user)
    throw unusable(`its JWT is of the user ${claims.sub}, and its seed of the user ${user}`);
  if (claims.exp && claims.exp * 1000 < Date.now())
    throw unusable(`its JWT expired at ${new Date(claims.exp * 1000).toISOString()}`);
  return { jwt, seed: Buffer.from(seed) };
}
