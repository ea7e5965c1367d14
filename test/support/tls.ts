import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Authority } from './certificates.js';

/** How the services and clients of a test use TLS, with a certificate on both sides. */
export interface TestTls {
  /** The service's settings. */
  readonly settings: Record<string, string>;
  /** What clients take, as PEM: the authority, and their own certificate. */
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** Undefined for plain text. FEED_TEST_TLS=1 runs a test's services and clients with TLS, as the specs of test/tls/again do. */
export const testTls: TestTls | undefined =
  process.env.FEED_TEST_TLS === '1' ? await createTls() : undefined;

async function createTls(): Promise<TestTls> {
  const directory = mkdtempSync(join(tmpdir(), 'feed-test-tls-'));
  // Not imported above: programs that tests start import this file, too.
  const { afterAll } = await import('vitest');
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const authority = new Authority(directory);
  const server = authority.server();
  const client = authority.client();
  return {
    settings: {
      FEED_TLS_CERT: server.cert,
      FEED_TLS_KEY: server.key,
      FEED_TLS_CLIENT_CA: authority.cert,
    },
    ca: readFileSync(authority.cert),
    cert: readFileSync(client.cert),
    key: readFileSync(client.key),
  };
}
