import { expect, onTestFinished, test } from 'vitest';
import { Callers, type CallerRules, type Credentials } from '../../src/auth/callers.js';
import { parseKeyFile } from '../../src/auth/keys.js';
import { parsePolicy } from '../../src/auth/policy.js';
import { Tokens } from '../../src/auth/tokens.js';
import { FeedError } from '../../src/feed/errors.js';
import { type LiveCall, LiveCalls } from '../../src/feed/live-calls.js';
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

test('a change of the policy looks at a part of the rooms at a time, and ends each call that it forbids', async () => {
  const rule = (principal: string): string =>
    `rules: [{principals: ["${principal}"], verbs: [chat], topics: [">"]}]`;
  let policy = parsePolicy(rule('*'));
  const calls = new LiveCalls();
  const callers = new Callers(
    { tokens: undefined, demandsCertificate: true, policy: () => policy },
    calls,
  );
  const ended: number[] = [];
  for (let i = 0; i < 3; i++) {
    const call = { abort: () => void ended.push(i) } as unknown as LiveCall;
    calls.add(call);
    const caller = await callers.admit(call, { ...NOTHING, peerIdentity: `client-${i}` });
    for (let room = 0; room < 5_000; room++) caller.may('chat', `room-${room}`);
  }
  policy = parsePolicy(rule('client-1'));
  const looking = callers.policyChanged();
  expect(ended).toEqual([0]);
  await looking;
  expect(ended).toEqual([0, 2]);
});
