import { existsSync, mkdirSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { NestFactory } from '@nestjs/core';
import { Module } from '@nestjs/common';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { expect, onTestFinished, test } from 'vitest';
import { serveConsole } from '../../src/http/console.js';
import { ask } from '../support/http.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';

@Module({})
class EmptyModule {}

/** Serves a directory of files as the console's. */
async function serve(files: string): Promise<string> {
  const app = await NestFactory.create<NestExpressApplication>(EmptyModule, { logger: false });
  serveConsole(app, true, files);
  const server = (await app.listen(0, '127.0.0.1')) as { address(): { port: number } };
  onTestFinished(() => app.close());
  return `127.0.0.1:${server.address().port}`;
}

function built(): string {
  const files = join(temporaryDirectory(), 'console');
  mkdirSync(join(files, 'assets'), { recursive: true });
  writeFileSync(join(files, 'index.html'), '<!doctype html>the page');
  writeFileSync(join(files, 'assets', 'index-abc.js'), 'the code');
  writeFileSync(join(files, '..', 'secret'), 'no');
  return files;
}

/** Returns the files of a directory that this process has open. */
function openBelow(directory: string): string[] {
  const descriptors = '/proc/self/fd';
  return readdirSync(descriptors)
    .map((name) => join(descriptors, name))
    .filter((path) => existsSync(path))
    .map((path) => readlinkSync(path))
    .filter((file) => file.startsWith(directory));
}

test('the page comes with a policy that lets it ask this server alone, and is looked up again each time', async () => {
  const address = await serve(built());
  const page = await ask(address, '/console/');
  expect(page.text).toContain('the page');
  expect(page.headers).toMatchObject({
    'content-type': 'text/html; charset=utf-8',
    'content-length': '23',
    'cache-control': 'no-cache',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
  });
  const policy = page.headers['content-security-policy'];
  expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'; /);
  expect(policy).not.toContain('unsafe');
  const code = await ask(address, '/console/assets/index-abc.js');
  expect(code.headers).toMatchObject({
    'content-type': 'text/javascript; charset=utf-8',
    'cache-control': 'public, max-age=31536000, immutable',
  });
  const short = await ask(address, '/console');
  expect([short.status, short.headers.location]).toEqual([308, './console/']);
  for (const path of ['/console/../secret', '/console/%2e%2e/secret', '/console/nothing.js'])
    expect((await ask(address, path)).status).toBe(404);
});

test('a page that the browser has is not sent again', async () => {
  const address = await serve(built());
  const { headers } = await ask(address, '/console/');
  const again = await ask(address, '/console/', { headers: { 'if-none-match': headers.etag! } });
  expect([again.status, again.text]).toEqual([304, '']);
});

test('files that are asked for one behind another on a connection are not open while they wait', async () => {
  const files = built();
  writeFileSync(join(files, 'assets', 'large.js'), Buffer.alloc(20 * 2 ** 20));
  const [host, port] = (await serve(files)).split(':');
  const socket = connect({ host, port: Number(port) });
  onTestFinished(() => void socket.destroy());
  socket.write('GET /console/assets/large.js HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(10));
  // The client reads no more of the first answer, so the others wait behind it.
  let received = 0;
  socket.on('data', (part) => {
    received += part.length;
    socket.pause();
  });
  await until(() => received > 0, 'the first answer');
  expect(openBelow(files)).toEqual([]);
});

test('without its files, and with FEED_CONSOLE=off, there is none, which is said', async () => {
  const missing = join(temporaryDirectory(), 'none');
  const unbuilt = await ask(await serve(missing), '/console/');
  expect(unbuilt.status).toBe(404);
  expect(unbuilt.json).toMatchObject({ detail: expect.stringContaining('npm run build') });
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory', FEED_CONSOLE: 'off' });
  const off = await ask(httpAddress, '/console');
  expect(off.status).toBe(404);
  expect(off.json).toMatchObject({ detail: expect.stringContaining('FEED_CONSOLE=off') });
  expect((await ask(httpAddress, '/')).status).toBe(404);
});

test('the address alone leads to the page', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const root = await ask(httpAddress, '/');
  expect([root.status, root.headers.location]).toEqual([307, './console/']);
});
