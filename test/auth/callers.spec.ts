import { expect, onTestFinished, test } from 'vitest';
import { Callers, type CallerRules, type Credentials } from '../../src/auth/callers.js';
import { parseKeyFile } from '../../src/auth/keys.js';
import { Tokens } from '../../src/auth/tokens.js';
import { FeedError } from '../../src/feed/errors.js';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { AUDIENCE, ISSUER, Issuer } from '../support/tokens.js';

const issuer = await Issuer.create();
const tokens = new Tokens(parseKeyFile(issuer.pem), {
  issuer: ISSUER,
  audience: AUDIENCE,
  algorithms: ['ES256'],
  clockTolerance: 0,
});

const NOTHING: Credentials = { authorization: [], peerIdentity: undefined };
const token = { authorization: [`Bearer ${await issuer.token({ sub: 'ann' })}`] };
const certificate = { peerIdentity: 'spiffe://example.org/web' };

/** Who the callers of a service with these rules are. */
async function names(rules: Partial<CallerRules>, ...shown: Partial<Credentials>[]) {
  const whole = { tokens: undefined, demandsCertificate: false, policy: () => undefined };
  const callers = new Callers({ ...whole, ...rules }, new LiveCalls());
  onTestFinished(() => callers.close());
  const found: string[] = [];
  for (const one of shown) {
    const identity = callers.identify({ ...NOTHING, ...one });
    found.push(
      await identity.then(
        ({ principal }) => principal,
        (error: unknown) => (error instanceof FeedError ? error.reason : String(error)),
      ),
    );
  }
  return found;
}

const shown = [{}, token, certificate, { ...token, ...certificate }];

test('a token says who calls, where tokens are asked for', async () => {
  const found = await names({ tokens }, ...shown);
  expect(found).toEqual(['UNAUTHENTICATED', 'ann', 'UNAUTHENTICATED', 'ann']);
});

test('a certificate says who calls, where certificates are asked for', async () => {
  const { peerIdentity } = certificate;
  const found = await names({ demandsCertificate: true }, ...shown);
  expect(found).toEqual(['UNAUTHENTICATED', 'UNAUTHENTICATED', peerIdentity, peerIdentity]);
});

test('where both are asked for, both are needed, and the token says who calls', async () => {
  const found = await names({ tokens, demandsCertificate: true }, ...shown);
  expect(found).toEqual(['UNAUTHENTICATED', 'UNAUTHENTICATED', 'UNAUTHENTICATED', 'ann']);
});
