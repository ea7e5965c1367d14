import { createPublicKey } from 'node:crypto';
import { createLocalJWKSet, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';

/** The keys can't be used; the message says why. It has nothing of the keys. */
export class KeysError extends Error {}

/** The kinds of keys that can have signed a token. Others are left out, as RFC 7517 wants it: an issuer may have them for later. */
const KINDS = ['RSA', 'EC', 'OKP'];

/** A set of JSON Web Keys. Private and symmetric keys are refused: whoever has one can make tokens. */
const KEY_SET = z.looseObject({
  keys: z
    .array(
      z.looseObject({
        kty: z.string().refine((kty) => kty !== 'oct', 'must be RSA, EC or OKP'),
        d: z.never('must not be there: this is a private key').optional(),
      }),
    )
    .min(1, 'must have a key'),
});

/**
 * Reads a JSON Web Key Set.
 *
 * @returns finds the key of a token
 * @throws KeysError
 */
export function parseKeySet(json: string): JWTVerifyGetKey {
  let content: unknown;
  try {
    content = JSON.parse(json);
  } catch {
    throw new KeysError('it is not JSON');
  }
  const { data, error } = KEY_SET.safeParse(content);
  if (error) {
    const problems = error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
    throw new KeysError(`it is no set of public keys: ${problems.join('; ')}`);
  }
  const keys = data.keys.filter(({ kty }) => KINDS.includes(kty));
  if (keys.length === 0) throw new KeysError('it has no key of RSA, EC or OKP');
  return createLocalJWKSet({ keys });
}

const PEM_BLOCK = /-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----/g;

/**
 * Reads the public keys of a file: one or several in PEM (public keys or certificates), or a JSON Web Key Set.
 *
 * @returns finds the key of a token
 * @throws KeysError
 */
export function parseKeyFile(text: string): JWTVerifyGetKey {
  if (text.trimStart().startsWith('{')) return parseKeySet(text);
  const blocks = [...text.matchAll(PEM_BLOCK)];
  if (blocks.length === 0) throw new KeysError('it is neither PEM nor a JSON Web Key Set');
  const keys = blocks.map(([pem, kind]) => {
    if (kind.includes('PRIVATE'))
      throw new KeysError('it has a private key: only the issuer of the tokens may have that');
    try {
      return createPublicKey(pem).export({ format: 'jwk' });
    } catch (cause) {
      throw new KeysError(`its ${kind} can't be read: ${(cause as Error).message}`);
    }
  });
  const find = parseKeySet(JSON.stringify({ keys }));
  // A key in PEM has no id, so a token's id of its key says nothing here.
  return (header, token) => find({ ...header, kid: undefined }, token);
}
