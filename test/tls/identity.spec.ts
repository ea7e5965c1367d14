import { expect, test } from 'vitest';
import { Certificates, HANDSHAKE_TIMEOUT } from '../../src/tls/certificates.js';
import { expiryOf, identityOf } from '../../src/tls/identity.js';
import { Authority } from '../support/certificates.js';
import { temporaryDirectory } from '../support/service.js';
import { serve } from '../transport/harness.js';
import { CALLS, type ClientCertificates } from './calls.js';

const ORDERS = 'spiffe://example.org/ns/shop/sa/orders';

/** Serves with TLS. Returns a function that calls with a certificate, and returns the identity that the call has. */
async function serveIdentities(authority: Authority, isMutual = true) {
  const { cert, key } = authority.server();
  const ignore = (): void => {};
  const certificates = await Certificates.open(
    { cert, key, clientCa: isMutual ? authority.cert : undefined },
    { info: ignore, warn: ignore, error: ignore },
  );
  certificates.close();
  const identities: (string | undefined)[] = [];
  const { address } = await serve(
    {
      async *chat(_, call) {
        identities.push(call.peerIdentity);
        yield { bytes: Buffer.from([0, 0, 0, 0, 0]) };
      },
    },
    {
      tls: {
        certificates,
        handshakeTimeout: HANDSHAKE_TIMEOUT,
        identityOf,
        expiryOf,
        onExpired: { refusal: new Error('expired'), endCalls: ignore },
        onFailedHandshake: ignore,
      },
    },
  );
  return async (own: ClientCertificates['own']): Promise<string | undefined> => {
    expect(await CALLS.Chat(address, { ca: authority.cert, own })).toBe('OK');
    return identities.at(-1);
  };
}

test.each([
  ['its SPIFFE ID', { subject: '/CN=orders', names: `URI:${ORDERS}` }, ORDERS],
  ['its SPIFFE ID, among other names', { names: `DNS:orders,URI:${ORDERS},URI:https://x` }, ORDERS],
  ['its common name', { subject: '/O=shop/CN=orders', names: 'DNS:other' }, 'orders'],
  ['nobody, with two SPIFFE IDs', { names: `URI:${ORDERS},URI:${ORDERS}-2` }, undefined],
  ['nobody, with two common names', { subject: '/CN=orders/CN=payments' }, undefined],
  ['nobody, without a name', { subject: '/O=shop' }, undefined],
  ['nobody, with a SPIFFE ID for a common name', { subject: '/CN=spiffe:\\/\\/x\\/y' }, undefined],
  // Node quotes such a name.
  [
    'nobody, with a SPIFFE ID that has a comma',
    { subject: '/CN=orders', names: '@names\n[names]\nURI.1=spiffe://example.org/a,b' },
    undefined,
  ],
  // The name is one, with a comma. OpenSSL's configuration has it in a section of its own.
  [
    'its common name, with a SPIFFE ID inside of another name',
    { subject: '/CN=orders', names: '@names\n[names]\nURI.1=https://x, URI:spiffe://evil/x' },
    'orders',
  ],
])('a client is %s', async (_, wanted, expected) => {
  const authority = new Authority(temporaryDirectory());
  const identify = await serveIdentities(authority);
  expect(await identify(authority.client(wanted))).toBe(expected);
});

test('a certificate that nobody asks for or verifies makes no identity', async () => {
  const authority = new Authority(temporaryDirectory());
  const identify = await serveIdentities(authority, false);
  expect(await identify(authority.client())).toBeUndefined();
  expect(await identify(undefined)).toBeUndefined();
});
