import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { keepNewest, OPERATOR_PORT_CONNECTIONS } from '../../src/config/operator-ports.js';

test('connections that come before the oldest one has closed are as few', () => {
  const keep = keepNewest();
  // The 'close' of a stream comes after this turn.
  const connections = Array.from({ length: 40 }, () => new PassThrough());
  for (const connection of connections) keep(connection);
  const open = connections.filter(({ destroyed }) => !destroyed);
  expect(open).toEqual(connections.slice(-OPERATOR_PORT_CONNECTIONS));
});
