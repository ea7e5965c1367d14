import { generateKeyPairSync } from 'node:crypto';
import { decodeJwt, SignJWT } from 'jose';
import { describe, expect, it } from 'vitest';
import { KeysError, parseKeyFile } from '../../src/auth/keys.js';
import { Tokens } from '../../src/auth/tokens.js';
import { AUDIENCE, ISSUER, Issuer } from '../support/tokens.js';

const RULES = {
  issuer: ISSUER,
  audience: AUDIENCE,
  algorithms: ['RS256', 'ES256', 'EdDSA'],
  clockTolerance: 0,
};

describe('a file of keys', () => {
  it.each(['RS256', 'ES256', 'EdDSA'])(
    'may be PEM, whatever id the token names (%s)',
    async (alg) => {
      const issuer = await Issuer.create('any', alg);
      const tokens = new Tokens(parseKeyFile(issuer.pem), RULES);
      expect((await tokens.verify(await issuer.token())).principal).toBe('ann');
    },
  );

  it('may have several keys in PEM, of which any may have signed', async () => {
    const issuers = await Promise.all(['1', '2', '3'].map((kid) => Issuer.create(kid)));
    const [first, second, other] = issuers;
    const tokens = new Tokens(parseKeyFile(`${first.pem}\n${second.pem}`), RULES);
    for (const one of [first, second])
      expect((await tokens.verify(await one.token())).principal).toBe('ann');
    await expect(tokens.verify(await other.token())).rejects.toMatchObject({
      reason: 'UNAUTHENTICATED',
    });
  });

  it('may be a key set', async () => {
    const issuer = await Issuer.create();
    const tokens = new Tokens(parseKeyFile(JSON.stringify({ keys: [issuer.jwk] })), RULES);
    expect((await tokens.verify(await issuer.token())).principal).toBe('ann');
  });

  it('may have keys of kinds that are not known, beside those that are', async () => {
    const issuer = await Issuer.create();
    const later = { kty: 'AKP', alg: 'ML-DSA-44', kid: 'later', pub: 'AAAA' };
    const tokens = new Tokens(parseKeyFile(JSON.stringify({ keys: [later, issuer.jwk] })), RULES);
    expect((await tokens.verify(await issuer.token())).principal).toBe('ann');
  });

  it('may have a key that is too short for use, beside the one that has signed', async () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const short = String(publicKey.export({ type: 'spki', format: 'pem' }));
    const issuer = await Issuer.create('any', 'RS256');
    const tokens = new Tokens(parseKeyFile(`${short}${issuer.pem}`), RULES);
    expect((await tokens.verify(await issuer.token())).principal).toBe('ann');
  });

  const { privateKey } = generateKeyPairSync('ed25519');
  it.each([
    ['empty', '', 'neither PEM nor'],
    ['text', 'hello', 'neither PEM nor'],
    ['no key', '{"keys": []}', 'must have a key'],
    ['half of JSON', '{"keys": [', 'not JSON'],
    [
      'PEM of nothing',
      '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----',
      "can't be read",
    ],
    ['a private key', String(privateKey.export({ type: 'pkcs8', format: 'pem' })), 'private key'],
    [
      'a private key in a set',
      JSON.stringify({ keys: [privateKey.export({ format: 'jwk' })] }),
      'private key',
    ],
    ['keys of unknown kinds', '{"keys": [{"kty": "AKP"}]}', 'no key of RSA, EC or OKP'],
    ['a secret', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', 'must be RSA, EC or OKP'],
  ])('is refused without what it has: %s', (_, text, problem) => {
    expect(() => parseKeyFile(text)).toThrow(KeysError);
    expect(() => parseKeyFile(text)).toThrow(problem);
  });
});

describe('a token', () => {
  it.each([
    ['no expiry', (token: SignJWT) => token, 'it has no "exp"'],
    [
      'no subject',
      (token: SignJWT) => token.setExpirationTime('1h').setSubject(''),
      'names nobody',
    ],
    [
      'a start in the future',
      (token: SignJWT) => token.setExpirationTime('1h').setNotBefore('1h'),
      'not valid yet',
    ],
    [
      'a name of 3 KB',
      (token: SignJWT) => token.setExpirationTime('1h').setSubject('x'.repeat(3_000)),
      'not a name',
    ],
  ])('with %s is refused', async (_, claims, why) => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const token = new SignJWT()
      .setProtectedHeader({ alg: 'EdDSA' })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setSubject('ann');
    const pem = String(publicKey.export({ type: 'spki', format: 'pem' }));
    const verified = new Tokens(parseKeyFile(pem), RULES).verify(
      await claims(token).sign(privateKey),
    );
    await expect(verified).rejects.toThrow(why);
    await expect(verified).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
  });

  it('is taken until its expiry and the clock tolerance are over, and its session ends then', async () => {
    const issuer = await Issuer.create();
    const token = await issuer.token({ expiresIn: -2 });
    const verify = (clockTolerance: number) =>
      new Tokens(parseKeyFile(issuer.pem), { ...RULES, clockTolerance }).verify(token);
    await expect(verify(0)).rejects.toMatchObject({ reason: 'TOKEN_EXPIRED' });
    const { expiresAt } = await verify(10_000);
    expect(expiresAt).toBe(decodeJwt(token).exp! * 1_000 + 10_000);
  });
});
