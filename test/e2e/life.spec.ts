import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { failure, take, upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until, upToThrice } from '../support/wait.js';

const event = (id: string): Partial<Event> => ({ id, topic: 'orders', body: 'secret body' });

describe('the process', () => {
  test('says where it listens, where events are kept and what an acknowledgement means', async () => {
    const directory = temporaryDirectory();
    const service = await ServiceProcess.start({ FEED_DATA_DIR: directory });
    const output = (): string => service.output.join('');
    await until(
      () => output().split('\n').length > 4,
      () => `four lines: ${output()}`,
    );
    expect(output()).toMatch(/gRPC listens on 127\.0\.0\.1:\d+/);
    expect(output()).toMatch(/HTTP listens on 127\.0\.0\.1:\d+/);
    expect(output()).toContain(`events are kept in ${directory}`);
    expect(output()).toContain('an acknowledged event is flushed to disk');
    expect(output().trim().split('\n')).toHaveLength(4);
  });

  test('does not start with a bad setting, and names it', async () => {
    const service = ServiceProcess.spawn({ FEED_ENGINE: 'postgres', FEED_MAX_EVENT_BYTE: '1' });
    expect(await service.ended()).toEqual({ code: 78, signal: null });
    const output = service.output.join('');
    expect(output).toContain('FEED_ENGINE=postgres');
    expect(output).toContain('FEED_MAX_EVENT_BYTE is not a setting');
  });

  test('does not start on a data directory or a port that another process has', async () => {
    const directory = temporaryDirectory();
    const first = await ServiceProcess.start({ FEED_DATA_DIR: directory });
    const second = ServiceProcess.spawn({ FEED_DATA_DIR: directory });
    expect(await second.ended()).toEqual({ code: 1, signal: null });
    expect(second.output.join('')).toContain('another process uses the data directory');
    const third = ServiceProcess.spawn({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_GRPC_ADDRESS: first.grpcAddress,
    });
    expect(await third.ended()).toEqual({ code: 1, signal: null });
    expect(third.output.join('')).toMatch(/gRPC can't listen on .*EADDRINUSE.*FEED_GRPC_ADDRESS/);
  });

  test('on SIGTERM drains and exits with 0, with watches, uploads and chats open', async () => {
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_DRAIN_TIMEOUT: '500ms',
    });
    const client = service.connect();
    const watch = client.Watch({ topic: 'orders' });
    const chat = client.Chat();
    const [watching, chatting] = [failure(watch), failure(chat)];
    await once(watch, 'metadata');
    chat.write({ text: 'open?' });
    await once(chat, 'data');
    const uploading = Promise.withResolvers<unknown>();
    client.UploadEvents((error) => uploading.resolve(error)).write(event('a'));
    await once(watch, 'data');
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(await watching).toMatchObject({ code: 14 });
    expect(await chatting).toMatchObject({ code: 14 });
    expect(await uploading.promise).toMatchObject({ code: 14 });
    expect(service.output.join('')).not.toContain('secret body');
  });

  test('does not start on a damaged log, and says so', async () => {
    for (const damage of [
      () => randomBytes(100_000),
      (log: Buffer) => log.subarray(0, log.length / 2),
    ]) {
      const directory = temporaryDirectory();
      const settings = { FEED_DATA_DIR: directory };
      const before = await ServiceProcess.start(settings);
      await upload(
        before.connect(),
        Array.from({ length: 500 }, (_, i) => ({ ...event(String(i)), body: 'x'.repeat(9000) })),
      );
      await before.kill('SIGTERM');
      const file = join(directory, 'log', 'data.mdb');
      writeFileSync(file, damage(readFileSync(file)));
      const after = ServiceProcess.spawn(settings);
      expect(await after.ended()).toEqual({ code: 1, signal: null });
      expect(after.output.join('')).toContain('is damaged');
    }
  });

  test('ends on SIGTERM although a client keeps a connection to the HTTP port', async () => {
    const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
    const [host, port] = service.httpAddress.split(':');
    const socket = createConnection({ host, port: Number(port) });
    socket.on('error', () => {});
    await once(socket, 'connect');
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  });

  test('drains when its terminal is closed', async () => {
    const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
    const watch = service.connect().Watch({ topic: 'orders' });
    const watching = failure(watch);
    await once(watch, 'metadata');
    expect(await service.kill('SIGHUP')).toEqual({ code: 0, signal: null });
    expect((await watching).details).toContain('shutting down');
  });

  test('npm start passes signals on to the service, and leaves no process behind', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const service = ServiceProcess.npmStart({ FEED_DATA_DIR: temporaryDirectory() });
      await service.ready();
      const watch = service.connect().Watch({ topic: 'orders' });
      const watching = failure(watch);
      await once(watch, 'metadata');
      service.process.kill(signal);
      expect(await watching).toMatchObject({
        code: 14,
        details: expect.stringContaining('shutting down') as string,
      });
      await service.ended();
      await expect(fetch(`http://${service.httpAddress}/healthz`)).rejects.toThrow();
    }
  });

  test('on SIGTERM during start-up ends at once, and its log can be opened again', async () => {
    const settings = { FEED_DATA_DIR: temporaryDirectory() };
    for (const delay of [20, 60, 120, 250, 400, 600]) {
      const service = ServiceProcess.spawn(settings);
      await sleep(delay);
      // A signal that comes before main.ts handles signals ends the process itself. How long that is depends on the machine.
      const { code, signal } = await service.kill('SIGTERM');
      expect(signal ?? code).toBeOneOf([0, 'SIGTERM']);
    }
    const service = await ServiceProcess.start(settings);
    expect((await upload(service.connect(), [event('a')])).result?.received).toBe(1);
  });

  test('a watch that nobody reads gets UNAVAILABLE at shutdown, like any other', async () => {
    const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
    const client = service.connect();
    const body = 'x'.repeat(100_000);
    for (let i = 0; i < 10; i++)
      await upload(
        client,
        Array.from({ length: 10 }, () => ({ topic: 'big', body })),
      );
    const watch = client.Watch({ topic: 'big', position: 1 });
    const error = new Promise<{ code: number }>((resolve) => watch.on('error', resolve));
    watch.once('data', () => watch.pause());
    await once(watch, 'data');
    await sleep(500); // time for the server to send all that it sends to a client that does not read
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    watch.resume();
    watch.on('data', () => {});
    expect(await error).toMatchObject({ code: 14 });
  });

  test('is not ready while it drains, and goes on serving for FEED_DRAIN_DELAY', async () => {
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_DRAIN_DELAY: '10s',
    });
    const client = service.connect();
    const probe = async (path: string) =>
      (await fetch(`http://${service.httpAddress}/${path}`)).status;
    expect(await probe('readyz')).toBe(200);
    service.process.kill('SIGTERM');
    await eventually(async () => expect(await probe('readyz')).toBe(503));
    expect(await probe('healthz')).toBe(200);
    expect((await upload(client, [event('late')])).result?.received).toBe(1);
    expect(await service.ended()).toEqual({ code: 0, signal: null });
  });

  test('takes a signal that a parent forwards late for the same one', async () => {
    const outlivesRepeat = async (): Promise<boolean> => {
      const service = await ServiceProcess.start({
        FEED_ENGINE: 'memory',
        FEED_DRAIN_DELAY: '60s',
      });
      service.process.kill('SIGINT');
      await until(() => service.output.join('').includes('draining'), 'a service that drains');
      await sleep(600);
      service.process.kill('SIGTERM'); // of another kind, because two of one kind may come as one
      await sleep(500);
      const outlives = !service.output.join('').includes('ending at once');
      await service.kill('SIGKILL');
      return outlives;
    };
    // This process or the service may stand still until the second one is no repeat.
    expect(await upToThrice(outlivesRepeat, (outlives) => outlives)).toBe(true);
  });

  test('on a second signal ends at once, with what was acknowledged intact', async () => {
    const directory = temporaryDirectory();
    const settings = {
      FEED_DATA_DIR: directory,
      FEED_DRAIN_TIMEOUT: '60s',
      FEED_UPLOAD_EVENTS_PER_SECOND: '1',
    };
    const service = await ServiceProcess.start(settings);
    const client = service.connect();
    await upload(client, [event('a')]);
    const uploading = client.UploadEvents(() => {});
    // An upload that is held back keeps the drain waiting. One that is idle would end.
    for (let i = 0; i < 300; i++) uploading.write(event('b'));
    await take(client, { topic: 'orders', position: 1 }, 2);
    service.process.kill('SIGTERM');
    service.process.kill('SIGTERM'); // counts as the same signal, which a process group may get twice
    await until(() => service.output.join('').includes('draining'), 'a service that drains');
    await sleep(1_200); // shows that it does not end by itself; signals within 1 s count as one (signals.ts)
    expect(service.process.exitCode).toBeNull();
    service.process.kill('SIGTERM');
    // The drain would take a minute.
    expect(await service.ended(20_000)).toEqual({ code: null, signal: 'SIGKILL' });
    const again = await ServiceProcess.start(settings);
    const [first] = await take(again.connect(), { topic: 'orders', position: 1 }, 1);
    expect(first.id).toBe('a');
  });
});
