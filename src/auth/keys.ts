import { createPublicKey, type KeyObject } from 'node:crypto';
import { createLocalJWKSet, type JWK, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';

/** The keys can't be used; the message says why. It has nothing of the keys. */
export class KeysError extends Error {}

/** The curves of the keys of EC and OKP that can have signed a token. */
const CURVES: readonly unknown[] = ['P-256', 'P-384', 'P-521', 'Ed25519'];

/** The least length of a key of RSA, in bits: jose uses none that is shorter. */
const LEAST_RSA_BITS = 2048;

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
 * @param onBroken is told of each key that can't be used, and leaves it out if it returns; by default it throws what it is told
 * @returns finds the key of a token
 * @throws KeysError
 */
export function parseKeySet(
  json: string,
  onBroken: (error: KeysError) => void = (error) => {
    throw error;
  },
): JWTVerifyGetKey {
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
  let broken: KeysError | undefined;
  const keys = data.keys.flatMap((key, i) => {
    const read = canSign(key) ? readKey(key, i) : [];
    if (!(read instanceof KeysError)) return read;
    onBroken((broken = read));
    return [];
  });
  if (keys.length === 0)
    throw (
      broken ?? new KeysError('it has no key for signatures of RSA, P-256, P-384, P-521 or Ed25519')
    );
  return createLocalJWKSet({ keys });
}

/**
 * Returns true if a key is of a kind that signs tokens. Other keys are left out, as RFC 7517 wants it: an issuer may have them for
 * another use, or for later.
 */
function canSign({ kty, crv, use = 'sig', key_ops = ['verify'] }: JWK): boolean {
  const isKnown = kty === 'RSA' || ((kty === 'EC' || kty === 'OKP') && CURVES.includes(crv));
  return isKnown && use === 'sig' && Array.isArray(key_ops) && key_ops.includes('verify');
}

/**
 * Reads a key of a set. jose reads a key only when a token picks it, and would fail that call if the key is broken. jose also
 * refuses a good key whose `key_ops` names another operation besides `verify`, so the result has only what jose needs.
 *
 * @returns an error that names the key if it can't be used
 */
function readKey({ kid, alg, use, ...jwk }: JWK, index: number): JWK | KeysError {
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    if (isShort(key))
      throw new Error(`it has ${bitsOf(key)} bits, and RSA needs ${LEAST_RSA_BITS}`);
    return { ...(key.export({ format: 'jwk' }) as JWK), kid, alg, use };
  } catch (cause) {
    const name = kid === undefined ? `number ${index + 1}` : JSON.stringify(kid);
    const why = (cause as Error).message;
    return new KeysError(`its key ${name} can't be used: ${why}; take it out, or replace it`);
  }
}

/** Returns the bits of a key of RSA; undefined for keys of other kinds. */
const bitsOf = (key: KeyObject) => key.asymmetricKeyDetails?.modulusLength;

const isShort = (key: KeyObject): boolean => (bitsOf(key) ?? LEAST_RSA_BITS) < LEAST_RSA_BITS;

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
      const key = createPublicKey(pem);
      return { jwk: key.export({ format: 'jwk' }), isShort: isShort(key) };
    } catch (cause) {
      throw new KeysError(`its ${kind} can't be read: ${(cause as Error).message}`);
    }
  });
  // A key that is too short may stand beside others.
  const long = keys.filter((key) => !key.isShort);
  const used = long.length > 0 ? long : keys;
  const find = parseKeySet(JSON.stringify({ keys: used.map(({ jwk }) => jwk) }));
  // A key in PEM has no id, so a token's id of its key says nothing here.
  return (header, token) => find({ ...header, kid: undefined }, token);
}
