import { generateKeyPairSync, type KeyObject } from 'node:crypto';
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

  it('may have keys that are not for signatures, or on other curves, beside the one that has signed', async () => {
    const issuer = await Issuer.create();
    const others = [
      { ...issuer.jwk, use: 'enc' },
      { ...issuer.jwk, key_ops: ['encrypt'] },
      { kty: 'OKP', crv: 'X25519', x: 'AAAA', kid: issuer.kid },
      { kty: 'EC', crv: 'secp256k1', x: 'AAAA', y: 'AAAA', kid: issuer.kid },
    ];
    const set = JSON.stringify({ keys: [...others, issuer.jwk] });
    const tokens = new Tokens(parseKeyFile(set), RULES);
    expect((await tokens.verify(await issuer.token())).principal).toBe('ann');
  });

  it.each([
    ['that says more than "verify" of itself', { key_ops: ['sign', 'verify'] }],
    ['that is not to be exported', { ext: false }],
  ])('may have a key %s', async (_, more) => {
    const issuer = await Issuer.create();
    const set = JSON.stringify({ keys: [{ ...issuer.jwk, ...more }] });
    const tokens = new Tokens(parseKeyFile(set), RULES);
    expect((await tokens.verify(await issuer.token())).principal).toBe('ann');
  });

  it('may have several keys of one id, of which any may have signed', async () => {
    const issuers = await Promise.all(['same', 'same'].map((kid) => Issuer.create(kid)));
    const set = JSON.stringify({ keys: issuers.map(({ jwk }) => jwk) });
    const tokens = new Tokens(parseKeyFile(set), RULES);
    for (const one of issuers)
      expect((await tokens.verify(await one.token())).principal).toBe('ann');
    const other = await Issuer.create('same');
    await expect(tokens.verify(await other.token())).rejects.toThrow('none of the keys has signed');
  });

  it('may have a key of another algorithm than its tokens, which are refused', async () => {
    const issuer = await Issuer.create();
    const set = JSON.stringify({ keys: [{ ...issuer.jwk, alg: 'RS256' }] });
    await expect(
      new Tokens(parseKeyFile(set), RULES).verify(await issuer.token()),
    ).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
  });

  const [rsa, shortRsa] = [2048, 1024].map((modulusLength) =>
    generateKeyPairSync('rsa', { modulusLength }).publicKey.export({ format: 'jwk' }),
  );
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' });
  const ed = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' });
  it.each([
    ['RSA without a modulus', { ...rsa, n: undefined }],
    ['RSA whose modulus is no base 64', { ...rsa, n: '***' }],
    ['RSA whose modulus is a number', { ...rsa, n: 5 }],
    ['RSA that is too short for use', shortRsa],
    ['EC without half of its point', { ...ec, y: undefined }],
    ['EC whose point is cut', { ...ec, x: 'AAAA' }],
    ['EC whose point is not on the curve', { ...ec, y: ec.x }],
    ['EC whose point is on another curve', { ...ec, crv: 'P-384' }],
    ['Ed25519 that is cut', { ...ed, x: 'AAAA' }],
    ['EC that says it is RSA', { ...ec, kty: 'RSA' }],
  ])('is refused with the id of a key that can not be used: %s', async (_, key) => {
    const good = await Issuer.create('good');
    const set = JSON.stringify({ keys: [good.jwk, { ...key, kid: 'broken' }] });
    expect(() => parseKeyFile(set)).toThrow(KeysError);
    expect(() => parseKeyFile(set)).toThrow(
      /^its key "broken" can't be used: .+; take it out, or replace it$/,
    );
    const nameless = JSON.stringify({ keys: [good.jwk, key] });
    expect(() => parseKeyFile(nameless)).toThrow("its key number 2 can't be used: ");
  });

  const { privateKey } = generateKeyPairSync('ed25519');
  const pemOf = (key: KeyObject): string => String(key.export({ type: 'spki', format: 'pem' }));
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
    ['keys of unknown kinds', '{"keys": [{"kty": "AKP"}]}', 'no key for signatures of RSA'],
    [
      'keys for other ends',
      JSON.stringify({ keys: [{ ...rsa, use: 'enc' }] }),
      'no key for signatures of RSA',
    ],
    [
      'PEM of another curve',
      pemOf(generateKeyPairSync('ed448').publicKey),
      'no key for signatures of RSA',
    ],
    [
      'PEM that is too short for use',
      pemOf(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey),
      "its key number 1 can't be used: it has 1024 bits",
    ],
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
