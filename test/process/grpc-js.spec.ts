import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const INTERCEPTORS = 'build/src/server-interceptors.js';
const SERVER = 'build/src/server.js';

/** The built service, beside a copy of grpc-js in which a file was changed. */
function serviceWith(file: string, from: string, to: string): string {
  const directory = temporaryDirectory();
  for (const name of ['dist', 'proto', 'package.json'])
    cpSync(join(root, name), join(directory, name), { recursive: true });
  const modules = join(directory, 'node_modules');
  mkdirSync(join(modules, '@grpc'), { recursive: true });
  const link = (name: string): void =>
    symlinkSync(realpathSync(join(root, 'node_modules', name)), join(modules, name));
  for (const name of readdirSync(join(root, 'node_modules')))
    if (name !== '@grpc' && !name.startsWith('.')) link(name);
  for (const name of readdirSync(join(root, 'node_modules', '@grpc')))
    if (name !== 'grpc-js') link(join('@grpc', name));

  const grpcJs = join(modules, '@grpc', 'grpc-js');
  cpSync(join(root, 'node_modules', '@grpc', 'grpc-js'), grpcJs, { recursive: true });
  const edit = (name: string, before: string, after: string): void => {
    const text = readFileSync(join(grpcJs, name), 'utf8');
    expect(text).toContain(before);
    writeFileSync(join(grpcJs, name), text.replaceAll(before, after));
  };
  edit('package.json', '"version": "1.14.7"', '"version": "1.99.0"');
  edit(file, from, to);
  return directory;
}

describe('a start with another grpc-js', () => {
  test.each<[string, string, string, string]>([
    ['makes its HTTP/2 server elsewhere', 'its HTTP/2 server', 'createHttp2Server', 'makeServer'],
    [
      'has its own options elsewhere',
      'its HTTP/2 server',
      'commonServerOptions',
      'commonHttp2Options',
    ],
    ['takes no settings', 'the window of a stream (65535)', 'this.commonServerOptions)', '{})'],
  ])('that %s is refused', async (_what, difference, from, to) => {
    await expectRefusal(serviceWith(SERVER, from, to), difference);
  });

  test.each<[string, string, string, string]>([
    ['has the stream elsewhere', 'the HTTP/2 stream of a call', 'this.stream', 'this.http2Stream'],
    [
      'reads its streams in another way',
      'its listeners for "data" (0)',
      "this.stream.on('data', (data) => {",
      "this.stream.on('readable', () => { const data = this.stream.read(); if (data) ",
    ],
    [
      'fails on a call',
      'how it serves a call (',
      'this.stream.respond(headers, defaultResponseOptions);',
      'this.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);',
    ],
    [
      'sees the headers before this transport',
      'the status of a call (13)',
      'metadata.get(GRPC_TIMEOUT_HEADER)',
      "['never']",
    ],
    [
      'says elsewhere that a call has ended',
      'whether a call has ended (undefined)',
      'cancelNotified',
      'hasEnded',
    ],
    [
      'decompresses messages elsewhere',
      'how it reads a single request',
      'decompressMessage',
      'inflateMessage',
    ],
  ])('that %s is refused', async (_what, difference, from, to) => {
    await expectRefusal(serviceWith(INTERCEPTORS, from, to), difference);
  });
});

async function expectRefusal(directory: string, difference: string): Promise<void> {
  const main = join(directory, 'dist', 'main.js');
  const service = ServiceProcess.shell(`exec node_modules/.bin/node ${main}`, {
    FEED_DATA_DIR: join(directory, 'data'),
  });
  expect(await service.ended()).toEqual({ code: 1, signal: null });
  expect(service.output.join('')).toContain(
    `Feed can't start: @grpc/grpc-js 1.99.0 differs from the version of package.json in ${difference}`,
  );
}
