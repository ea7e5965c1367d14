import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { readStream } from '../../src/cli/line-blocks.js';
import { within } from '../../../test/support/wait.js';

test('the reading of a stream ends by a signal that fired before it began', async () => {
  const stream = new PassThrough();
  const chunks = readStream(stream, AbortSignal.abort());
  expect(await within(chunks.next(), 'the end')).toEqual({ done: true, value: undefined });
  expect(stream.destroyed).toBe(true);
});
