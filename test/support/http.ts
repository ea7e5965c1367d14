import { type IncomingHttpHeaders, type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import { testTls } from './tls.js';
import { until } from './wait.js';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body, parsed as JSON; undefined if it is none. */
  readonly json: never;
}

/** With `ca`, the request is made by TLS. */
export interface Sent extends RequestOptions {
  readonly body?: string | Buffer;
}

/** Makes one request on a connection of its own, and returns the whole answer. */
export async function ask(address: string, path: string, sent: Sent = {}): Promise<Answer> {
  const response = await openAnswer(address, path, sent);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.statusCode!, headers: response.headers, text, json: json as never };
}

/** Makes one request on a connection of its own, and resolves with the response, unread, once its headers have come. */
export async function openAnswer(
  address: string,
  path: string,
  { body, ...options }: Sent = {},
): Promise<IncomingMessage> {
  const [, host, port] = /^(.*):(\d+)$/.exec(address)!;
  const request = (testTls || options.ca ? httpsRequest : httpRequest)({
    host,
    port,
    path,
    agent: false,
    ...(testTls && { ca: testTls.ca, cert: testTls.cert, key: testTls.key }),
    ...options,
  });
  request.on('error', () => {});
  request.end(body);
  const [response] = (await Promise.race([
    once(request, 'response'),
    once(request, 'close').then(() => {
      throw new Error(`the connection closed before an answer to ${path}`);
    }),
  ])) as [IncomingMessage];
  return response;
}

/** One block of Server-Sent Events, or with only `data`, one line. */
export interface Block {
  readonly id?: string;
  readonly event?: string;
  readonly data?: string;
  readonly retry?: string;
}

/** The answer to GET /v1/events, as it comes. */
export class EventStream {
  /** What has come and is whole. */
  readonly blocks: Block[] = [];
  /** How many events have come. */
  private count = 0;
  hasEnded = false;

  private constructor(private readonly response: IncomingMessage) {
    const isLines = response.headers['content-type'] === 'application/x-ndjson';
    const separator = isLines ? '\n' : '\n\n';
    let rest = '';
    response.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split(separator);
      rest = parts.pop()!;
      const blocks = parts.map((part): Block => (isLines ? { data: part } : blockOf(part)));
      this.blocks.push(...blocks);
      this.count += blocks.filter(isEvent).length;
    });
    response.on('error', () => {}).on('close', () => (this.hasEnded = true));
  }

  static async open(
    address: string,
    query: string,
    headers: Record<string, string> = {},
  ): Promise<EventStream> {
    const stream = new EventStream(await openAnswer(address, `/v1/events?${query}`, { headers }));
    onTestFinished(() => stream.close());
    return stream;
  }

  get status(): number {
    return this.response.statusCode!;
  }

  get headers(): IncomingHttpHeaders {
    return this.response.headers;
  }

  /** The events that have come. */
  get events(): { id: string; topic: string; body: string; cursor: string }[] {
    return this.blocks.filter(isEvent).map(({ data }) => JSON.parse(data!) as never);
  }

  /** Why the server has ended it; undefined if it has not. */
  get problem(): Record<string, unknown> | undefined {
    const last = this.blocks.at(-1);
    if (last?.event === 'feed-error') return JSON.parse(last.data!) as Record<string, unknown>;
    if (last?.data?.startsWith('{"error":') !== true) return undefined;
    return (JSON.parse(last.data) as { error: Record<string, unknown> }).error;
  }

  async has(count: number, timeout?: number): Promise<this> {
    await until(
      () => this.count >= count,
      () =>
        `${count} events: there are ${this.count}, and last ${JSON.stringify(this.blocks.at(-1))}`,
      timeout,
    );
    return this;
  }

  async ended(): Promise<this> {
    await until(() => this.hasEnded, 'the end of a stream');
    return this;
  }

  pause(): void {
    this.response.pause();
  }

  resume(): void {
    this.response.resume();
  }

  close(): void {
    this.response.destroy();
  }
}

function isEvent({ data, event }: Block): boolean {
  return data !== undefined && event === undefined;
}

function blockOf(text: string): Block {
  return Object.fromEntries(
    text.split('\n').map((line) => {
      const colon = line.indexOf(': ');
      return [line.slice(0, colon), line.slice(colon + 2)];
    }),
  );
}
