import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test, vi } from 'vitest';
import { watch } from '../src/api/watch.ts';

const event = (n: number): string => JSON.stringify({ id: `id-${n}`, cursor: `cursor-${n}` });

/** Serves a page's data: a watch that sends these lines at once and stays open. */
async function serve(...lines: readonly string[]): Promise<void> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    response.write(lines.map((line) => `${line}\n`).join(''));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  vi.stubGlobal('document', { baseURI: `http://127.0.0.1:${port}/console/` });
  onTestFinished(() => {
    vi.unstubAllGlobals();
    server.closeAllConnections();
    server.close();
  });
}

test('a watch hands nothing on once its signal has fired, also of what came together', async () => {
  await serve(event(1), JSON.stringify({ cursor: 'cursor-1' }), event(2));
  const end = new AbortController();
  const handed: string[] = [];
  const watcher = {
    events: async (lines: readonly string[]) => {
      handed.push(...lines);
      await Promise.resolve();
      end.abort(new Error('paused'));
    },
    silent: (cursor: string) => void handed.push(cursor),
  };
  await expect(watch('t', {}, watcher, end.signal)).rejects.toThrow('paused');
  expect(handed).toEqual([event(1)]);
});
