import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { noteSignIn, request } from '../src/api/http.ts';
import { isSignedOut } from '../src/api/state.ts';

test.for([
  ['UNAUTHENTICATED', true],
  ['TOKEN_EXPIRED', true],
  // No token would help: the next connection shows the certificate that the browser has by then.
  ['CERTIFICATE_EXPIRED', false],
] as const)('a refusal with %s asks for a token: %s', async ([reason, isAsked]) => {
  const server = createServer((_request, response) => {
    response.writeHead(401, { 'content-type': 'application/problem+json' });
    response.end(JSON.stringify({ status: 401, reason }));
  });
  server.listen(0, '127.0.0.1');
  onTestFinished(() => {
    noteSignIn();
    server.closeAllConnections();
    server.close();
  });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const refused = request(new URL(`http://127.0.0.1:${port}/v1/topics`));
  await expect(refused).rejects.toMatchObject({ status: 401, reason });
  expect(isSignedOut.value).toBe(isAsked);
});
