import { once } from 'node:events';
import {
  type ClientRequest,
  type IncomingMessage,
  request as httpRequest,
  type Server,
} from 'node:http';
import { connect as connectTcp, type Socket } from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { OpenWork } from '../../src/feed/open-work.js';
import { EventRepository } from '../../src/repository/event-repository.js';
import { frame } from '../../src/wire/frames.js';
import { codec, take } from '../support/client.js';
import { ask, EventStream } from '../support/http.js';
import { RawClient } from '../support/raw-client.js';
import { type Running, runService, temporaryDirectory } from '../support/service.js';
import { Issuer } from '../support/tokens.js';
import { eventually, standstill, until, upToThrice, within } from '../support/wait.js';

const start = (settings: Record<string, string> = {}): Promise<Running> =>
  runService({ FEED_ENGINE: 'memory', ...settings });

const post = (address: string, body: string | Buffer, type = 'application/x-ndjson', query = '') =>
  ask(address, `/v1/events${query}`, { method: 'POST', headers: { 'content-type': type }, body });

/** The least FEED_RECEIVE_BYTES that a start takes with events of 1 MiB: four times their longest line. */
const LEAST_RECEIVED = {
  FEED_MAX_EVENT_BYTES: '1MiB',
  FEED_RECEIVE_BYTES: `${4 * (6 * 1024 * 1024 + 16 * 1024)}B`,
};

/** An upload whose body is written bit by bit. */
class SlowPost {
  readonly answer: Promise<{ status: number; text: string }>;

  private constructor(readonly request: ClientRequest) {
    this.answer = new Promise((resolve, reject) => {
      request.on('response', (response: IncomingMessage) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => (text += part));
        response.on('end', () => resolve({ status: response.statusCode!, text }));
      });
      request.on('error', reject);
    });
    this.answer.catch(() => {});
    onTestFinished(() => void request.destroy());
  }

  static begin(address: string, query = '', headers = {}): SlowPost {
    const [host, port] = address.split(':');
    const request = httpRequest({
      host,
      port,
      path: `/v1/events${query}`,
      method: 'POST',
      agent: false,
      headers: { 'content-type': 'application/x-ndjson', ...headers },
    });
    request.flushHeaders();
    return new SlowPost(request);
  }

  write(event: object): void {
    this.request.write(`${JSON.stringify(event)}\n`);
  }
}

describe('POST /v1/events', () => {
  test('stores lines of JSON, and says what it stored', async () => {
    const service = await start();
    const { httpAddress, client } = service;
    const body =
      '{"topic":"orders","id":"a","body":"é","at":"2026-01-31T09:00:00.5Z","attributes":{"k":"v"}}\r\n' +
      '\n  \n{"body":"b","cursor":"0000000001fc406w"}';
    const answer = await post(httpAddress, body, 'application/x-ndjson', '?topic=others');
    expect(answer.status).toBe(200);
    const [first] = await take(client, { topic: 'orders', position: 1 }, 1);
    const [second] = await take(client, { topic: 'others', position: 1 }, 1);
    expect(answer.json).toEqual({
      received: 2,
      duplicates: 0,
      lastCursor: second.cursor,
      durability: 'DURABILITY_MEMORY',
    });
    expect(answer.headers).toMatchObject({
      'feed-dedup-window': '120000',
      'feed-dedup-ids': '1000000',
      'cache-control': 'no-store',
    });
    const at = { seconds: 1769850000, nanos: 500_000_000 };
    expect(first).toMatchObject({ id: 'a', body: 'é', at, attributes: { k: 'v' } });
    expect(second.body).toBe('b');
    const again = await post(httpAddress, body, 'application/x-ndjson', '?topic=others');
    expect(again.json).toMatchObject({ received: 2, duplicates: 1 });
  });

  test('stores one object of JSON, lines of text, and what a watch has printed', async () => {
    const { httpAddress, client } = await start();
    const pretty = JSON.stringify({ topic: 'one', body: 'x' }, undefined, 2);
    expect((await post(httpAddress, pretty, 'application/json')).json).toMatchObject({
      received: 1,
    });
    const text = await post(
      httpAddress,
      'a\r\n\n b \nlast',
      'text/plain; charset=utf-8',
      '?topic=text',
    );
    expect(text.json).toMatchObject({ received: 4 });
    const lines = await take(client, { topic: 'text', position: 1 }, 4);
    expect(lines.map(({ body }) => body)).toEqual(['a', '', ' b ', 'last']);
    const stream = await EventStream.open(httpAddress, 'topic=text&from=earliest', {
      accept: 'application/x-ndjson',
    });
    await stream.has(4);
    const printed = stream.blocks.map(({ data }) => data).join('\n');
    expect((await post(httpAddress, printed)).json).toMatchObject({ received: 4 });
    expect((await post(httpAddress, '')).json).toMatchObject({ received: 0, lastCursor: '' });
    const plain = await ask(httpAddress, '/v1/events', {
      method: 'POST',
      headers: { 'content-type': 'Application/X-NDJSON', 'content-encoding': 'Identity' },
      body: '{"topic":"t"}',
    });
    expect(plain.json).toMatchObject({ received: 1 });
  });

  test.each([
    ['application/x-ndjson', '', '{"topic":"t"}\n{"topic":"t","x":1}\n{"topic":"t"}', 1, '1'],
    ['application/x-ndjson', '', '{"topic":"t"}\n{"topic"', 1, '1'],
    ['application/x-ndjson', '', '{"body":"no topic"}', 0, '0'],
    ['application/x-ndjson', '', '{"topic":"a b"}', 0, '0'],
    ['application/x-ndjson', '', `{"topic":"t","body":"${'x'.repeat(1024)}"}`, 0, '0'],
    ['application/x-ndjson', '', 'x'.repeat(100_000), 0, '0'],
    ['application/json', '', '[{"topic":"t"}]', 0, '0'],
    ['application/json', '', '{"topic":"t"}{"topic":"t"}', 0, '0'],
    ['application/json', '', '', 0, '0'],
    ['text/plain', '?topic=t', Buffer.from([0x61, 0x0a, 0xff, 0x0a]), 1, '1'],
  ])(
    '%s %s with a bad event is refused: what came before it is stored',
    async (type, query, body, index, received) => {
      const { httpAddress } = await start({ FEED_MAX_EVENT_BYTES: '1KiB' });
      const answer = await post(httpAddress, body, type, query);
      expect(answer.status).toBe(400);
      expect(answer.json).toMatchObject({
        reason: 'EVENT_INVALID',
        index: String(index),
        received,
      });
    },
  );

  test('a long line of what is no event is refused before it is parsed, and what came before it is stored', async () => {
    const { httpAddress } = await start();
    const answer = await post(httpAddress, `{"topic":"t"}\n{"body":${'['.repeat(6 * 2 ** 20)}`);
    expect(answer.status).toBe(400);
    expect(answer.json).toMatchObject({
      reason: 'EVENT_INVALID',
      index: '1',
      received: '1',
      detail: expect.stringContaining('it has more values than an event') as unknown,
    });
  });

  test.each([
    ['application/x-www-form-urlencoded', {}, '', 415, undefined],
    ['application/x-ndjson', { 'content-encoding': 'gzip' }, '', 415, undefined],
    ['text/plain; charset=utf-16', {}, '?topic=a', 415, undefined],
    ['text/plain', {}, '?topic=%ff', 400, 'REQUEST_INVALID'],
    ['text/plain', {}, '', 400, 'TOPIC_INVALID'],
    ['text/plain', {}, '?topic=a..b', 400, 'TOPIC_INVALID'],
    ['text/plain', {}, '?topic=a&topic=b', 400, 'REQUEST_INVALID'],
    ['text/plain', {}, '?from=earliest', 400, 'REQUEST_INVALID'],
  ])('%s %j %s is refused with %i %s', async (type, headers, query, status, reason) => {
    const { httpAddress } = await start();
    const answer = await ask(httpAddress, `/v1/events${query}`, {
      method: 'POST',
      headers: { 'content-type': type, ...headers },
      body: 'x',
    });
    expect([answer.status, (answer.json as { reason?: string }).reason]).toEqual([status, reason]);
    expect(answer.headers['content-type']).toBe('application/problem+json');
  });

  test('answers as soon as it fails, also while the body still comes', async () => {
    const service = await start();
    const upload = SlowPost.begin(service.httpAddress);
    upload.write({ topic: 't', body: 'a' });
    upload.write({ nothing: 1 });
    const { status, text } = await within(upload.answer, 'the answer');
    expect(status).toBe(400);
    expect(JSON.parse(text)).toMatchObject({ reason: 'EVENT_INVALID', index: '1', received: '1' });
    await eventually(() => expect([...service.app.get(LiveCalls)]).toEqual([]));
  });

  /** Sends bytes on a connection of its own. Resolves with all that comes back until it closes. */
  async function sendRaw(
    address: string,
    ...parts: (string | Promise<unknown>)[]
  ): Promise<string> {
    const [host, port] = address.split(':');
    const socket = connectTcp({ host, port: Number(port) });
    onTestFinished(() => void socket.on('error', () => {}).destroy());
    let received = '';
    socket.setEncoding('latin1').on('data', (text: string) => (received += text));
    for (const part of parts) {
      if (typeof part === 'string') socket.write(part);
      else await part;
    }
    await within(once(socket, 'close'), 'the end of the connection');
    return received;
  }

  const HEAD = [
    'POST /v1/events?topic=t HTTP/1.1',
    'Host: localhost',
    'Content-Type: text/plain',
    'Transfer-Encoding: ',
  ].join('\r\n');
  const stored = (service: Running, count: number) =>
    until(() => service.app.get(EventRepository).head === count, 'the stored events');

  test('a body whose chunks are broken is refused with what is stored of it', async () => {
    const service = await start();
    const answer = await sendRaw(
      service.httpAddress,
      `${HEAD}chunked\r\n\r\n4\r\na\nb\n\r\n`,
      stored(service, 2),
      'no length\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    expect(answer).toContain('"reason":"REQUEST_INVALID","received":"2"');
    await eventually(() => expect([...service.app.get(LiveCalls)]).toEqual([]));
  });

  test.each([
    ['what is no HTTP', 'no request\r\n\r\n'],
    [
      'a request with a broken body',
      'GET /v1/topics HTTP/1.1\r\nHost: feed\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    ],
  ])('%s behind an upload does not take the place of its result', async (_, next) => {
    const service = await start({ FEED_UPLOAD_EVENTS_PER_SECOND: '2' });
    const answer = await sendRaw(
      service.httpAddress,
      `${HEAD}chunked\r\n\r\nc\r\na\nb\nc\nd\ne\nf\n\r\n0\r\n\r\n${next}`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(answer).toContain('"received":6');
  });

  test('one that is cut short gets 400 of node, and what is no HTTP does, too', async () => {
    const service = await start();
    const [host, port] = service.httpAddress.split(':');
    const socket = connectTcp({ host, port: Number(port) });
    let received = '';
    socket.setEncoding('latin1').on('data', (text: string) => (received += text));
    socket.end(`${HEAD}chunked\r\n\r\n4\r\na\n`);
    await within(once(socket, 'close'), 'the end of the connection');
    expect(received).toBe('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
    expect(await sendRaw(service.httpAddress, 'no HTTP\r\n\r\n')).toBe(received);
    const long = `GET / HTTP/1.1\r\nA: ${'a'.repeat(20_000)}\r\n\r\n`;
    expect(await sendRaw(service.httpAddress, long)).toMatch(/^HTTP\/1\.1 431 /);
  });

  test('a transfer coding other than chunked is refused', async () => {
    const service = await start();
    const answer = await sendRaw(
      service.httpAddress,
      `${HEAD}gzip, chunked\r\n\r\n2\r\na\n\r\n0\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 415 /);
    expect(service.app.get(EventRepository).head).toBe(0);
  });

  test('a client that still sends a large body gets the answer that comes early', async () => {
    const service = await start();
    const body = `{"nothing":1}\n${'{"topic":"t","body":"x"}\n'.repeat(200_000)}`;
    for (let i = 0; i < 5; i++) {
      const answer = await post(service.httpAddress, body);
      expect(answer.json).toMatchObject({ reason: 'EVENT_INVALID', received: '0' });
      expect(answer.headers.connection).toBe('close');
    }
  });

  describe('an answer that came early', () => {
    const PART = '{"nothing":1}\n'.repeat(1_000);

    /** Begins an upload of bad events whose client does not read, and returns its connection and the service's end of it. */
    async function begin(body: string) {
      const { httpAddress, app } = await start();
      const served = once(app.getHttpServer() as Server, 'connection');
      const [host, port] = httpAddress.split(':');
      const socket = connectTcp({ host, port: Number(port) }).on('error', () => {});
      onTestFinished(() => void socket.destroy());
      const head =
        'POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson';
      socket.pause().write(`${head}\r\n${body}\r\n\r\n`);
      return { socket, served: (await served)[0] as Socket };
    }

    test('reaches a client that sends all of a large body over a slow link, and then reads', async () => {
      const answer = async (): Promise<string> => {
        const { socket } = await begin(`content-length: ${60 * PART.length}`);
        let text = '';
        socket.setEncoding('utf8').on('data', (part: string) => (text += part));
        socket.pause();
        for (let i = 0; i < 60; i++) {
          socket.write(PART);
          // The link's pace.
          await sleep(100);
        }
        socket.resume();
        await until(() => socket.closed, 'the end of the connection');
        return text;
      };
      // A process that stands still for two seconds reads nothing for so long, and closes the connection.
      const refusal = /^HTTP\/1\.1 400 [^]*EVENT_INVALID/;
      expect(await upToThrice(answer, (text) => refusal.test(text))).toMatch(refusal);
    });

    test('closes the connection after half a minute where the body has no end', async () => {
      vi.useFakeTimers({ toFake: ['setInterval'] });
      onTestFinished(() => void vi.useRealTimers());
      const { socket, served } = await begin('transfer-encoding: chunked');
      const chunk = `${PART.length.toString(16)}\r\n${PART}\r\n`;
      socket.write(chunk);
      await until(() => served.bytesWritten > 0, 'the answer');
      let looks = 0;
      for (; looks < 20 && !served.destroyed; looks++) {
        const before = served.bytesRead;
        socket.write(chunk);
        await until(() => served.destroyed || served.bytesRead > before, 'a part of the body');
        vi.advanceTimersByTime(2_000);
        await sleep(20);
      }
      expect(looks).toBeGreaterThanOrEqual(15);
      expect(looks).toBeLessThan(20);
    });
  });

  test('a client that may not upload gets the whole refusal, however large its body is', async () => {
    const issuer = await Issuer.create();
    const policy = join(temporaryDirectory(), 'policy.yaml');
    writeFileSync(policy, 'rules: []\n');
    const service = await start({ ...issuer.settings(), FEED_POLICY_FILE: policy });
    const body = '{"topic":"t","body":"x"}\n'.repeat(200_000);
    const [host, port] = service.httpAddress.split(':');
    const head = [
      'POST /v1/events HTTP/1.1',
      'host: localhost',
      `authorization: Bearer ${await issuer.token()}`,
      'content-type: application/x-ndjson',
      `content-length: ${body.length}`,
    ].join('\r\n');
    const answer = async (): Promise<string> => {
      const socket = connectTcp({ host, port: Number(port) }).pause();
      onTestFinished(() => void socket.destroy());
      let text = '';
      const ended = new Promise((resolve) => socket.on('error', resolve).on('close', resolve));
      socket
        .setEncoding('utf8')
        .on('data', (part: string) => (text += part))
        .pause();
      // As simple clients do, it sends all of its body and then reads.
      await new Promise((resolve) => socket.write(`${head}\r\n\r\n${body}`, resolve));
      socket.resume();
      await within(ended, 'the end of the answer');
      return text;
    };
    // The server reads on while more comes. Where it stands still for two seconds, the client's body meets a closed connection.
    const refusal = /^HTTP\/1.1 403 [^]*"reason":"TOPIC_FORBIDDEN","received":"0"}$/;
    expect(await upToThrice(answer, (text) => refusal.test(text))).toMatch(refusal);
  });

  test('a body may take any time, in any pieces', async () => {
    const service = await start();
    const server = service.app.getHttpServer() as { requestTimeout: number };
    expect(server.requestTimeout).toBe(0);
    const upload = SlowPost.begin(service.httpAddress);
    const body = Buffer.from('{"topic":"t","body":"é🎉"}\r\n{"topic":"t","body":"b"}\r\n');
    for (const byte of body) {
      upload.request.write(Buffer.from([byte]));
      await sleep(1);
    }
    await until(
      () => service.app.get(EventRepository).head === 2,
      'both events, before the end of the body',
    );
    upload.request.end();
    expect(JSON.parse((await upload.answer).text)).toMatchObject({ received: 2 });
    const events = await take(service.client, { topic: 't', position: 1 }, 2);
    expect(events.map(({ body: text }) => text)).toEqual(['é🎉', 'b']);
  });

  test('is not read while the log does not take more', async () => {
    const service = await start({ FEED_UPLOAD_BYTES_PER_SECOND: '1KiB' });
    const [host, port] = service.httpAddress.split(':');
    const socket = connectTcp({ host, port: Number(port) });
    onTestFinished(() => void socket.on('error', () => {}).destroy());
    await once(socket, 'connect');
    socket.write(
      'POST /v1/events?topic=t HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 1000000000\r\n\r\n',
    );
    const lines = Buffer.from(`${'x'.repeat(999)}\n`.repeat(1_000));
    let sent = 0;
    const more = (): void => {
      socket.write(lines, (error) => {
        if (error) return;
        sent += lines.length;
        more();
      });
    };
    more();
    // What the kernel takes for both ends, and little more.
    expect(await standstill(() => sent)).toBeLessThan(40e6);
    const [call] = service.app.get(LiveCalls);
    expect(call.bytes).toBeLessThan(1e6);
  });

  test('a client that goes away leaves what was stored, and nothing open', async () => {
    const service = await start();
    const upload = SlowPost.begin(service.httpAddress);
    upload.write({ topic: 't', body: 'a' });
    await until(() => service.app.get(EventRepository).head === 1, 'the event');
    expect(service.app.get(OpenWork).counts.uploads).toBe(1);
    upload.request.destroy();
    await eventually(() => {
      expect(service.app.get(OpenWork).counts.uploads).toBe(0);
      expect([...service.app.get(LiveCalls)]).toEqual([]);
      expect(service.log.find(({ method }) => method === '/http/UploadEvents')).toMatchObject({
        status: 'CANCELLED',
        events: 1,
      });
    });
  });

  test('over the limit of uploads is refused, and one at a drain ends with what is stored', async () => {
    const service = await start({ FEED_MAX_UPLOADS: '1', FEED_DRAIN_TIMEOUT: '20s' });
    const upload = SlowPost.begin(service.httpAddress);
    upload.write({ topic: 't', body: 'a' });
    await until(() => service.app.get(EventRepository).head === 1, 'the event');
    const refused = await post(service.httpAddress, '{"topic":"t"}');
    expect(refused.status).toBe(429);
    expect(refused.json).toMatchObject({ reason: 'LIMIT_EXCEEDED', limit: 'FEED_MAX_UPLOADS' });
    const closed = service.app.close();
    const { status, text } = await within(
      upload.answer,
      'the end of an upload that is idle',
      10_000,
    );
    expect(status).toBe(503);
    expect(JSON.parse(text)).toMatchObject({ reason: 'DRAINING', received: '1' });
    await closed;
  });

  test('beyond the quota is refused with 507, and says how many events are stored', async () => {
    const service = await runService({ FEED_QUOTA_BYTES: '1MiB' });
    const line = `${JSON.stringify({ topic: 't', body: 'x'.repeat(100_000) })}\n`;
    expect((await post(service.httpAddress, line.repeat(5))).status).toBe(200);
    const refused = await post(service.httpAddress, line.repeat(50));
    expect(refused.status).toBe(507);
    expect(refused.json).toMatchObject({
      title: 'Insufficient Storage',
      reason: 'STORAGE_FULL',
      received: expect.stringMatching(/^\d$/),
    });
  });

  test('the largest event is taken where there is just room for it, however its line is written', async () => {
    const service = await start(LEAST_RECEIVED);
    // Beside the body, an event takes 8 bytes, its id 38 and its time up to 14.
    const event = { topic: 't', body: '\u0001'.repeat(1024 * 1024 - 8 - 38 - 14) };
    const { status, json } = await post(service.httpAddress, `${JSON.stringify(event)}\n`);
    expect([status, json]).toMatchObject([200, { received: 1 }]);
  });

  test('what a watch has printed can be uploaded to a server with the same limit, however large it is', async () => {
    const settings = { FEED_MAX_EVENT_BYTES: '1KiB' };
    const { httpAddress, grpcAddress } = await start(settings);
    // The id takes 38 bytes, the time up to 14, the topic 3, and the body 3 beside its characters.
    const line = 'x'.repeat(1024 - 38 - 14 - 3 - 3);
    expect((await post(httpAddress, line, 'text/plain', '?topic=t')).json).toMatchObject({
      received: 1,
    });
    const over = await post(httpAddress, `${line}${'x'.repeat(10)}`, 'text/plain', '?topic=t');
    expect(over.json).toMatchObject({ reason: 'EVENT_INVALID', index: '0' });
    // An attribute whose value is empty, as some encoders write it: without that field.
    const attributes = Buffer.from('32030a0161', 'hex');
    const fields = { id: 'a', topic: 't', at: { seconds: 1, nanos: 5 } };
    const bare = Buffer.concat([codec.event.serialize({ ...fields, body: line }), attributes]);
    const body = 'x'.repeat(line.length + 1024 - bare.length);
    const raw = await RawClient.connect(grpcAddress);
    const call = raw.open('UploadEvents').drop();
    call.stream.end(frame(Buffer.concat([codec.event.serialize({ ...fields, body }), attributes])));
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    raw.close();
    const watch = await EventStream.open(httpAddress, 'topic=t&from=earliest', {
      accept: 'application/x-ndjson',
    });
    await watch.has(2);
    const printed = watch.blocks.map(({ data }) => data).join('\n');
    const other = await start(settings);
    expect((await post(other.httpAddress, printed)).json).toMatchObject({ received: 2 });
  });

  test('lines that never end are bounded together: the largest ends', async () => {
    const service = await start(LEAST_RECEIVED);
    const small = SlowPost.begin(service.httpAddress, '?topic=t');
    small.request.write('{"body":"');
    const large = SlowPost.begin(service.httpAddress, '?topic=t');
    large.request.write(`{"body":"${'\\u0001'.repeat(900_000)}`);
    // Memory grows by a quarter: this one never holds so much that it is the larger when both hold too much.
    const last = SlowPost.begin(service.httpAddress, '?topic=t');
    last.request.write(`{"body":"${'\\u0001'.repeat(400_000)}`);
    const { status, text } = await within(large.answer, 'the end of the largest');
    expect(status).toBe(429);
    expect(JSON.parse(text)).toMatchObject({
      reason: 'LIMIT_EXCEEDED',
      limit: 'FEED_RECEIVE_BYTES',
      received: '0',
    });
    for (const one of [small, last]) {
      one.request.end('"}');
      expect(JSON.parse((await one.answer).text)).toMatchObject({ received: 1 });
    }
  });
});
